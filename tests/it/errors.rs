//! Every mistake gives a typed error with the numbers in it, before anything is recorded.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use hydralora::device::Gpu;
use hydralora::stopwatch::Stopwatch;
use hydralora::wgpu;
use hydralora::{
    AdamW, AdamWBuffers, AdamWDescriptor, AdamWHyper, Adapter, BackwardInputOptions, BackwardParamsOptions,
    Batch, Bound, Choice, Config, DeviceProfile, Dropout, Element, Error, ForwardOptions, FusedChoice,
    GateGradient, GateGradientsOptions, GateLossesOptions, GateRows, GroupHyper, Groups, Kernels, Limit,
    LinearDirection, LinearOptions, Operation, OuterChoice, Planner, Recording, Router, Sharing, Tensor,
    Weighting,
};

use crate::common::{CONFIG, GPU, adapter, zeroed};

static KERNELS: LazyLock<Kernels> = LazyLock::new(|| Kernels::new(&GPU.device, &GPU.queue));

const TOKENS: u32 = 4;

/// The operations, with everything in f32.
fn forward() -> Operation {
    Operation::Forward(ForwardOptions::default())
}

fn backward_input() -> Operation {
    Operation::BackwardInput(BackwardInputOptions::default())
}

fn backward_params() -> Operation {
    Operation::BackwardParams(BackwardParamsOptions::default())
}

fn linear(direction: LinearDirection) -> Operation {
    Operation::Linear(LinearOptions { direction, ..LinearOptions::default() })
}

fn plan(
    operation: Operation,
    config: &Config,
    tokens: u32,
    device: &DeviceProfile,
) -> Result<Recording, Error> {
    Planner::new(device.clone()).plan(&operation, config, tokens)
}

/// Plans the operation with a tuning table that prefers `choice`.
fn plan_tuned(
    operation: Operation,
    config: &Config,
    tokens: u32,
    device: &DeviceProfile,
    choice: Choice,
) -> Result<Recording, Error> {
    let mut planner = Planner::new(device.clone());
    planner.tuning.set(config, tokens, operation, choice);
    planner.plan(&operation, config, tokens)
}

fn candidates(
    operation: Operation,
    config: &Config,
    tokens: u32,
    device: &DeviceProfile,
) -> Result<Vec<Recording>, Error> {
    Planner::new(device.clone()).candidates(&operation, config, tokens)
}

fn scratch_bytes(recording: &Recording) -> u64 {
    recording.scratch.iter().sum()
}

fn config([d_in, d_out, rank, experts]: [u32; 4], router: Router) -> Config {
    Config { d_in, d_out, rank, experts, scaling: 1.0, router, ..Default::default() }
}

struct Buffers {
    x: wgpu::Buffer,
    parameters: wgpu::Buffer,
    y: wgpu::Buffer,
    saved: wgpu::Buffer,
}

impl Buffers {
    fn new() -> Self {
        let layout = CONFIG.layout().expect("a valid configuration");
        Self {
            x: zeroed("x", 1024),
            parameters: zeroed("parameters", layout.len()),
            y: zeroed("y", 1024),
            saved: zeroed("saved", 16),
        }
    }

    fn forward(&self) -> Forward<'_> {
        Forward {
            config: CONFIG,
            tokens: TOKENS,
            x: (&self.x).into(),
            parameters: (&self.parameters).into(),
            y: (&self.y).into(),
            saved: (&self.saved).into(),
        }
    }
}

/// A forward of a training step, prepared for its tensors' element types.
#[derive(Clone, Copy)]
struct Forward<'a> {
    config: Config,
    tokens: u32,
    x: Tensor<'a>,
    parameters: Tensor<'a>,
    y: Tensor<'a>,
    saved: Tensor<'a>,
}

impl Forward<'_> {
    fn bind(&self, kernels: &Kernels) -> Result<Bound, Error> {
        let Self { config, tokens, x, parameters, y, saved } = *self;
        let options = ForwardOptions {
            save: true,
            x: x.element(),
            parameters: parameters.element(),
            y: y.element(),
            ..ForwardOptions::default()
        };
        let prepared = kernels.prepare(&Operation::Forward(options), &config, tokens)?;
        prepared.bind(&[("x", x), ("parameters", parameters), ("y", y), ("saved", saved)])
    }
}

/// Binds a forward that must be refused. Checks the error's message, and returns the error.
fn refused(forward: &Forward<'_>, mentions: &[&str]) -> Error {
    let error = forward.bind(&KERNELS).expect_err("must be refused");
    mentions_all(&error, mentions);
    error
}

fn mentions_all(error: &Error, mentions: &[&str]) {
    let message = error.to_string();
    for mention in mentions {
        assert!(message.contains(mention), "the message should mention {mention:?}: {message}");
    }
}

#[test]
fn the_unchanged_descriptor_is_accepted() {
    let buffers = Buffers::new();
    buffers.forward().bind(&KERNELS).expect("a valid descriptor");
}

#[test]
fn zero_dimensions() {
    let buffers = Buffers::new();
    let zeros = [
        (Forward { tokens: 0, ..buffers.forward() }, "tokens"),
        (Forward { config: Config { d_in: 0, ..CONFIG }, ..buffers.forward() }, "d_in"),
        (Forward { config: Config { d_out: 0, ..CONFIG }, ..buffers.forward() }, "d_out"),
        (Forward { config: Config { rank: 0, ..CONFIG }, ..buffers.forward() }, "rank"),
        (Forward { config: Config { experts: 0, ..CONFIG }, ..buffers.forward() }, "experts"),
    ];
    for (descriptor, dimension) in zeros {
        assert_eq!(refused(&descriptor, &[dimension, "at least 1"]), Error::ZeroDimension { dimension });
    }
    let flat = Config { d_out: 4, ..Config::default() };
    let linear = plan(linear(LinearDirection::Forward), &flat, 4, KERNELS.profile());
    assert_eq!(linear, Err(Error::ZeroDimension { dimension: "d_in" }));
}

#[test]
fn options_that_exclude_each_other() {
    let top = |k| Weighting::TopK { k, renormalise: true };
    let buffers = Buffers::new();
    let config = Config { a: Sharing::Separate, router: Router::Latent, ..CONFIG };
    let error = refused(&Forward { config, ..buffers.forward() }, &["A for each expert", "latent router"]);
    assert!(matches!(error, Error::Exclusive { .. }), "{error:?}");
    // One expert has no router.
    let one = Config { experts: 1, ..config };
    let layout = one.layout().expect("nothing excludes anything");
    assert_eq!(Ok(layout), Config { a: Sharing::Shared, ..one }.layout());
    let given = Router::GivenWeights;
    let config = Config { weighting: top(2), router: given, ..CONFIG };
    let error = refused(&Forward { config, ..buffers.forward() }, &["top-k", "given weights"]);
    assert!(matches!(error, Error::Exclusive { .. }), "{error:?}");
    let excluded = |config: Config, operation: Operation, texts: [&str; 2]| {
        let error = plan(operation, &config, TOKENS, KERNELS.profile()).expect_err("they exclude each other");
        let text = error.to_string();
        assert!(
            matches!(error, Error::Exclusive { .. }) && texts.iter().all(|part| text.contains(part)),
            "{text}"
        );
    };
    for weighting in [Weighting::Sigmoid, Weighting::NormalisedSigmoid] {
        excluded(Config { weighting, router: given, ..CONFIG }, forward(), ["sigmoid", "given weights"]);
    }
    for router in [given, Router::GivenLogits] {
        excluded(Config { router_bias: true, router, ..CONFIG }, forward(), ["bias", "no router"]);
    }
    excluded(
        Config { temperature: 2.0, router: given, ..CONFIG },
        forward(),
        ["temperature", "given weights"],
    );
    let rows = Operation::Forward(ForwardOptions { gates: GateRows::Batch, ..ForwardOptions::default() });
    excluded(CONFIG, rows, ["rows of gates", "router"]);
    let adding = |of| {
        let gate_gradient = Some(of);
        Operation::BackwardInput(BackwardInputOptions { gate_gradient, ..BackwardInputOptions::default() })
    };
    let of_weights = adding(GateGradient::Weights(GateRows::Token));
    excluded(Config { experts: 1, ..CONFIG }, of_weights, ["gradient", "one expert"]);
    let of_logits = adding(GateGradient::Logits(GateRows::Token));
    excluded(Config { router: given, ..CONFIG }, of_logits, ["gradient of logits", "given weights"]);
    let with_z = |config| {
        let losses = Operation::GateLosses(GateLossesOptions { z: 0.1, ..GateLossesOptions::default() });
        move |words| excluded(config, losses, words)
    };
    let sums = |rows| Operation::GateGradients(GateGradientsOptions { rows });
    excluded(CONFIG, sums(GateRows::Batch), ["gradients of given", "a router"]);
    with_z(CONFIG)(["a z-loss", "logsumexp"]);
    let logsumexp = Config { logsumexp: true, ..CONFIG };
    with_z(Config { weighting: Weighting::Sigmoid, ..logsumexp })(["logsumexp", "softmax"]);
    with_z(Config { weighting: Weighting::NormalisedSigmoid, ..logsumexp })(["logsumexp", "softmax"]);
    with_z(Config { router: given, ..logsumexp })(["logsumexp", "softmax"]);
    with_z(Config { experts: 1, ..logsumexp })(["logsumexp", "one expert"]);
    for k in [0, CONFIG.experts + 1] {
        let config = Config { weighting: top(k), ..CONFIG };
        let error = refused(&Forward { config, ..buffers.forward() }, &["k is", "number of experts, 2"]);
        assert!(matches!(error, Error::InvalidNumber { name: "k", .. }), "{error:?}");
    }
}

#[test]
fn numbers_out_of_their_range() {
    let refused = |config: Config, name: &str, texts: [&str; 2]| {
        let error = plan(forward(), &config, TOKENS, KERNELS.profile()).expect_err("it is out of its range");
        let text = error.to_string();
        assert!(matches!(error, Error::InvalidNumber { name: actual, .. } if actual == name), "{text}");
        assert!(texts.iter().all(|part| text.contains(part)), "{text}");
    };
    for temperature in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40] {
        refused(Config { temperature, ..CONFIG }, "temperature", ["temperature is", "above 0"]);
    }
    for probability in [-0.1, 1.0, 1.5, f32::NAN] {
        let dropout = Some(Dropout::new(probability));
        refused(Config { dropout, ..CONFIG }, "the probability of dropout", ["dropout is", "below 1"]);
    }
    // Next to nothing is kept.
    let dropout = Some(Dropout::new(1.0f32.next_down()));
    plan(forward(), &Config { dropout, ..CONFIG }, TOKENS, KERNELS.profile()).expect("it is below 1");
    for (name, options) in [
        ("balance", GateLossesOptions { balance: f32::NAN, ..Default::default() }),
        ("spread", GateLossesOptions { spread: f32::INFINITY, ..Default::default() }),
        ("z", GateLossesOptions { z: f32::NEG_INFINITY, ..Default::default() }),
    ] {
        let error = plan(Operation::GateLosses(options), &CONFIG, TOKENS, KERNELS.profile());
        let error = error.expect_err("it is not finite");
        assert!(matches!(error, Error::InvalidNumber { name: actual, .. } if actual == name), "{error}");
    }
    let gates = GateRows::Sequence(0);
    let rows = Operation::Forward(ForwardOptions { gates, ..ForwardOptions::default() });
    let config = Config { router: Router::GivenLogits, ..CONFIG };
    let error = plan(rows, &config, TOKENS, KERNELS.profile());
    assert_eq!(error, Err(Error::ZeroDimension { dimension: "the tokens of a sequence" }));
}

/// A mask, gates and their gradient have as many numbers as their options say, and are f32.
#[test]
fn masks_and_gates_of_the_wrong_size() {
    let config = Config { router: Router::GivenLogits, ..CONFIG };
    let options = ForwardOptions { mask: true, gates: GateRows::Sequence(2), ..ForwardOptions::default() };
    let prepared = KERNELS.prepare(&Operation::Forward(options), &config, TOKENS).expect("a valid layer");
    let buffers = Buffers::new();
    let (mask, gates) = (zeroed("mask", 4), zeroed("gates", 4));
    let bind = |mask: Tensor<'_>, gates: Tensor<'_>| {
        let [x, parameters, y] = [&buffers.x, &buffers.parameters, &buffers.y].map(Tensor::from);
        let tensors = [("x", x), ("parameters", parameters), ("y", y), ("mask", mask), ("gates", gates)];
        prepared.bind(&tensors).map(|_| ())
    };
    assert_eq!(bind((&mask).into(), (&gates).into()), Ok(()));
    let error = bind(Tensor::new(&mask, 0, 12), (&gates).into()).expect_err("it has three numbers");
    assert!(matches!(error, Error::TooSmall { tensor: "mask", needed: 16, given: 12, .. }), "{error}");
    let error = bind((&mask).into(), Tensor::new(&gates, 0, 8)).expect_err("it has one row of two");
    assert!(matches!(error, Error::TooSmall { tensor: "gates", needed: 16, given: 8, .. }), "{error}");
    let error = bind(Tensor::from(&mask).of(Element::F16), (&gates).into()).expect_err("it is f16");
    assert!(matches!(error, Error::WrongElement { tensor: "mask", .. }), "{error}");
}

#[test]
fn a_scaling_that_is_no_number() {
    let buffers = Buffers::new();
    let config = Config { scaling: f32::NAN, ..CONFIG };
    let error = refused(&Forward { config, ..buffers.forward() }, &["scaling", "NaN", "finite"]);
    assert!(matches!(error, Error::InvalidNumber { name: "scaling", .. }));
}

#[test]
fn too_small() {
    let buffers = Buffers::new();
    // Four tokens of eight f32 take 128 bytes.
    let x = Tensor::new(&buffers.x, 0, 124);
    let error = refused(&Forward { x, ..buffers.forward() }, &["x", "128", "124", "4 x 8"]);
    assert!(matches!(error, Error::TooSmall { tensor: "x", needed: 128, given: 124, .. }));
    let bigger = Config { rank: 3, ..CONFIG };
    let error = refused(&Forward { config: bigger, ..buffers.forward() }, &["parameters"]);
    assert!(matches!(error, Error::TooSmall { tensor: "parameters", .. }));
}

#[test]
fn outside_the_buffer() {
    let buffers = Buffers::new();
    for (offset, size) in [(256, 4096), (8192, 128), (256, u64::MAX)] {
        let x = Tensor::new(&buffers.x, offset, size);
        let error = refused(&Forward { x, ..buffers.forward() }, &["x", "4096"]);
        assert_eq!(error, Error::OutOfBuffer { tensor: "x", offset, size, buffer_size: 4096 });
    }
}

#[test]
fn misaligned() {
    let buffers = Buffers::new();
    let x = Tensor::new(&buffers.x, 4, 128);
    let error = refused(&Forward { x, ..buffers.forward() }, &["x", "byte 4", "multiple"]);
    assert!(matches!(error, Error::Misaligned { tensor: "x", offset: 4, .. }));
}

#[test]
fn missing_usage() {
    let buffers = Buffers::new();
    let no_storage = GPU.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 4096,
        usage: wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    let descriptor = Forward { y: (&no_storage).into(), ..buffers.forward() };
    let error = refused(&descriptor, &["y", "STORAGE"]);
    assert_eq!(error, Error::MissingUsage { tensor: "y", missing: "STORAGE" });
}

#[test]
fn reading_back_needs_a_flag() {
    let no_copy = GPU.device.create_buffer(&wgpu::BufferDescriptor {
        label: None,
        size: 16,
        usage: wgpu::BufferUsages::STORAGE,
        mapped_at_creation: false,
    });
    let error = GPU.read_blocking(&no_copy);
    assert_eq!(error, Err(Error::MissingUsage { tensor: "the buffer to read", missing: "COPY_SRC" }));
}

/// A separate device, and the number of errors that reach the application's handler if it has one.
fn own_gpu(adapter: &wgpu::Adapter, handled: bool) -> (Gpu, Arc<AtomicUsize>) {
    let gpu = pollster::block_on(Gpu::from_adapter(adapter)).expect("the device under test");
    let errors = Arc::new(AtomicUsize::new(0));
    if handled {
        let counted = Arc::clone(&errors);
        gpu.device.on_uncaptured_error(Arc::new(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
        }));
    }
    (gpu, errors)
}

/// Every way to read a buffer.
fn reads(gpu: &Gpu, buffer: &wgpu::Buffer) -> [Result<Vec<f32>, Error>; 4] {
    [
        gpu.read_blocking(buffer),
        gpu.read_as_blocking(buffer, Element::F16, 3),
        // Nobody polls the device meanwhile, so these must fail at once.
        pollster::block_on(gpu.read(buffer)),
        pollster::block_on(gpu.read_as(buffer, Element::Bf16, 1)),
    ]
}

#[test]
fn a_copy_that_is_refused_is_an_error_and_no_zeros() {
    // wgpu distinguishes devices of one instance.
    let adapter = &adapter();
    for handled in [false, true] {
        let (gpu, errors) = own_gpu(adapter, handled);
        let (other, _) = own_gpu(adapter, handled);
        let ones = || gpu.upload("ones", &[1.0; 16]).expect("it fits");
        let destroyed = ones();
        destroyed.destroy();
        let in_use = ones();
        gpu.submit(|_| Ok(())).expect("an empty pass");
        in_use.destroy();
        let mapped = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("mapped"),
            size: 64,
            usage: wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: true,
        });
        let elsewhere = other.zeroed("elsewhere", 16).expect("it fits");
        for (buffer, mention) in
            [(&destroyed, "destroyed"), (&in_use, "destroyed"), (&mapped, "mapped"), (&elsewhere, "Device")]
        {
            for read in reads(&gpu, buffer) {
                let error = read.expect_err(mention);
                assert!(matches!(error, Error::Device { .. }), "{error:?}");
                mentions_all(&error, &["reading a buffer back", mention]);
            }
        }
        // The device still works.
        mapped.unmap();
        assert_eq!(gpu.read_blocking(&mapped), Ok(vec![0.0; 16]));
        assert_eq!(gpu.read_blocking(&ones()), Ok(vec![1.0; 16]));
        assert_eq!(errors.load(Ordering::Relaxed), 0, "returned errors do not reach the handler as well");
    }
}

#[test]
fn work_that_is_refused_is_an_error() {
    for handled in [false, true] {
        let (gpu, errors) = own_gpu(&adapter(), handled);
        let kernels = Kernels::new(&gpu.device, &gpu.queue);
        let buffer = |elements| gpu.zeroed("buffer", elements).expect("it fits");
        let (x, parameters, y, saved) = (buffer(1024), buffer(1024), buffer(1024), buffer(16));
        let buffers = Buffers { x, parameters, y, saved };
        let forward = buffers.forward().bind(&kernels).expect("it fits");
        let stopwatch = Stopwatch::new(&gpu).expect("it fits");
        let batch = Batch::new(&kernels, TOKENS).expect("it fits");
        stopwatch.time(|pass| forward.encode(pass, &batch)).expect("it runs");
        buffers.x.destroy();
        let submitted = gpu.submit(|pass| forward.encode(pass, &batch)).map(drop);
        let timed = stopwatch.time(|pass| forward.encode(pass, &batch)).map(drop);
        for refused in [submitted, timed] {
            let error = refused.expect_err("x is gone");
            assert!(matches!(error, Error::Device { .. }), "{error:?}");
            mentions_all(&error, &["destroyed"]);
        }
        gpu.wait().expect("the device goes on");
        assert_eq!(errors.load(Ordering::Relaxed), 0);
    }
}

#[test]
fn only_what_is_there_can_be_read() {
    let bytes = |size| {
        GPU.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage: wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        })
    };
    let short = |read: Result<Vec<f32>, Error>, bytes: [u64; 2]| {
        let error = read.expect_err("it is too short");
        let Error::TooSmall { needed, given, .. } = error else { panic!("{error:?}") };
        assert_eq!([needed, given], bytes, "{error}");
    };
    // wgpu copies whole words only, and these sizes are not whole words.
    for size in [1, 2, 3, 6, 9] {
        short(GPU.read_blocking(&bytes(size)), [size.next_multiple_of(4), size]);
        short(pollster::block_on(GPU.read(&bytes(size))), [size.next_multiple_of(4), size]);
    }
    short(GPU.read_as_blocking(&bytes(6), Element::F16, 3), [8, 6]);
    short(GPU.read_as_blocking(&bytes(8), Element::F16, 5), [12, 8]);
    short(GPU.read_as_blocking(&bytes(8), Element::F32, 3), [12, 8]);
    short(GPU.read_as_blocking(&bytes(8), Element::F32, usize::MAX), [u64::MAX, 8]);
    assert_eq!(GPU.read_as_blocking(&bytes(6), Element::F16, 2), Ok(vec![0.0; 2]), "the first word of it");
    assert_eq!(GPU.read_blocking(&bytes(0)), Ok(Vec::new()));
}

#[test]
fn as_many_come_back_as_went_in() {
    for element in [Element::F32, Element::F16, Element::Bf16] {
        for count in 0..=9 {
            let values: Vec<f32> = (0..count).map(|value| value as f32 - 3.5).collect();
            let buffer = GPU.upload_as("values", &values, element).expect("it fits");
            assert_eq!(GPU.read_as_blocking(&buffer, element, count), Ok(values), "{count} {element}");
            let zeros = GPU.zeroed_as("zeros", count, element).expect("it fits");
            assert_eq!(zeros.size(), buffer.size());
            assert_eq!(GPU.read_as_blocking(&zeros, element, count), Ok(vec![0.0; count]));
        }
    }
    // The bits stay the same. The first element is in the low half of a word.
    let bits = [0x7f80_0001, 0xffc0_1234, 1, 0x8000_0000];
    let buffer = GPU.upload("bits", &bits.map(f32::from_bits)).expect("it fits");
    assert_eq!(
        GPU.read_blocking(&buffer).map(|read| read.into_iter().map(f32::to_bits).collect()),
        Ok(bits.to_vec())
    );
    let buffer = GPU.upload_as("halves", &[1.0, -2.0], Element::Bf16).expect("it fits");
    assert_eq!(GPU.read_blocking(&buffer).map(|read| read[0].to_bits()), Ok(0xc000_3f80));
    assert_eq!(Element::F32.encode(&[1.0]), [0, 0, 0x80, 0x3f]);
}

#[test]
fn more_than_a_buffer_may_have() {
    let over = |created: Result<wgpu::Buffer, Error>, bytes: u64| {
        let error = created.expect_err("it is over the limit");
        let Error::OverLimit { needed, allowed, .. } = error else { panic!("{error:?}") };
        assert!(needed == bytes && needed > allowed, "{error}");
        mentions_all(&error, &["hoard", "max_buffer_size", &needed.to_string(), &allowed.to_string()]);
    };
    let most = GPU.device.limits().max_buffer_size;
    over(GPU.zeroed("hoard", most as usize / 4 + 1), (most / 4 + 1) * 4);
    over(GPU.zeroed("hoard", usize::MAX), u64::MAX);
    over(
        GPU.zeroed_as("hoard", most as usize / 2 + 2, Element::F16),
        (2 * (most / 2 + 2)).next_multiple_of(4),
    );
    // A device with small limits.
    let limits = wgpu::Limits {
        max_buffer_size: 1024,
        max_storage_buffer_binding_size: 1024,
        ..wgpu::Limits::downlevel_defaults()
    };
    let adapter = adapter();
    let request = adapter.request_device(&wgpu::DeviceDescriptor {
        required_limits: limits.or_worse_values_from(&adapter.limits()),
        ..Default::default()
    });
    let (device, queue) = pollster::block_on(request).expect("every device has as much");
    let gpu = Gpu { device, queue };
    over(gpu.upload("hoard", &[0.0; 257]), 1028);
    over(gpu.upload_as("hoard", &[0.0; 513], Element::Bf16), 1028);
    gpu.upload("all of it", &[0.0; 256]).expect("as much as is allowed");
}

#[test]
fn half_precision_has_its_conditions() {
    let buffers = Buffers::new();
    let half = |buffer, element| Tensor::from(buffer).of(element);
    // Rows of eight halves are accepted, rows of six are not.
    let y = half(&buffers.y, Element::Bf16);
    Forward { y, ..buffers.forward() }.bind(&KERNELS).expect("rows of eight");
    let config = Config { d_out: 6, ..CONFIG };
    let error = refused(&Forward { config, y, ..buffers.forward() }, &["y", "bf16", "6", "multiples of 4"]);
    assert_eq!(error, Error::HalfRows { tensor: "y", element: Element::Bf16, width: 6 });
    // The state that forward saves for backward is f32.
    let saved = half(&buffers.saved, Element::F16);
    let error = refused(&Forward { saved, ..buffers.forward() }, &["saved", "f16", "f32"]);
    assert_eq!(error, Error::WrongElement { tensor: "saved", given: Element::F16, needed: Element::F32 });
    // Half precision needs half the bytes.
    let x = Tensor::new(&buffers.x, 0, 64).of(Element::F16);
    Forward { x, ..buffers.forward() }.bind(&KERNELS).expect("4 x 8 f16 are 64 bytes");
    let x = Tensor::new(&buffers.x, 0, 60).of(Element::F16);
    refused(&Forward { x, ..buffers.forward() }, &["x", "4 x 8 f16", "64", "60"]);
}

#[test]
fn one_buffer_read_and_written() {
    let buffers = Buffers::new();
    // Disjoint ranges of one buffer, which wgpu would refuse only when they are submitted.
    let y = Tensor::new(&buffers.x, 2048, 128);
    let shared = Forward { y, ..buffers.forward() };
    let error = refused(&shared, &["x", "y", "same buffer", "pooled"]);
    assert_eq!(error, Error::Aliased { written: "y", other: "x" });
    let batch = Batch::new(&KERNELS, TOKENS).expect("it fits");
    let runs = |bound: Result<Bound, Error>| {
        GPU.submit(|pass| bound?.encode(pass, &batch)).expect("wgpu accepts it");
    };
    runs(shared.bind(&KERNELS.pooled()));
    // Two written tensors may share a buffer.
    let saved = Tensor::new(&buffers.y, 2048, 64);
    runs(Forward { saved, ..buffers.forward() }.bind(&KERNELS));
    runs(
        Forward { y, saved: Tensor::new(&buffers.x, 2304, 64), ..buffers.forward() }.bind(&KERNELS.pooled()),
    );
    // A tensor does not cover bytes beyond its shape.
    runs(Forward { y: Tensor::new(&buffers.y, 0, 4096), saved, ..buffers.forward() }.bind(&KERNELS));
}

#[test]
fn tensors_that_overlap() {
    let buffers = Buffers::new();
    let overlapping = |forward: Forward<'_>, written, other, ranges: [std::ops::Range<u64>; 2]| {
        for kernels in [KERNELS.clone(), KERNELS.pooled()] {
            let error = forward.bind(&kernels).expect_err("must be refused");
            mentions_all(&error, &[written, other, &ranges[0].end.to_string(), "do not overlap"]);
            assert_eq!(error, Error::Overlap { written, other, ranges: ranges.clone() });
        }
    };
    let y = (&buffers.x).into();
    overlapping(Forward { y, ..buffers.forward() }, "y", "x", [0..128, 0..128]);
    let larger = Forward { config: Config { d_out: 128, ..CONFIG }, ..buffers.forward() };
    let parameters = zeroed("parameters", 1024);
    let (parameters, saved) = ((&parameters).into(), Tensor::new(&buffers.y, 1792, 64));
    overlapping(Forward { parameters, saved, ..larger }, "y", "saved", [0..2048, 1792..1856]);
}

#[test]
fn over_a_limit() {
    let profile = DeviceProfile::new(wgpu::Limits::default(), 8);
    let over = |error: Error, expected: Limit| {
        let Error::OverLimit { limit, needed, allowed, .. } = &error else { panic!("{error:?}") };
        assert_eq!(*limit, expected);
        assert!(needed > allowed, "{error}");
        mentions_all(&error, &[&limit.to_string(), &needed.to_string(), &allowed.to_string()]);
    };
    // Workgroup memory must hold h and w of at least four tokens: 64 bytes for each of rank + experts.
    let wide = config([8, 8, 2000, 2], Router::Input);
    over(plan(forward(), &wide, 4, &profile).expect_err("too wide"), Limit::ComputeWorkgroupStorageSize);
    over(
        plan(backward_input(), &wide, 4, &profile).expect_err("too wide"),
        Limit::ComputeWorkgroupStorageSize,
    );
    // Two folded dimensions of 65,535 workgroups suffice for any u32 number of tokens, but not two of 16.
    let narrow = DeviceProfile {
        limits: wgpu::Limits { max_compute_workgroups_per_dimension: 16, ..wgpu::Limits::default() },
        ..profile.clone()
    };
    let small = config([8, 8, 2, 2], Router::Input);
    for error in [
        plan(forward(), &small, 1_000_000, &narrow).err(),
        plan(backward_input(), &small, 1_000_000, &narrow).err(),
        plan(backward_params(), &config([1 << 20, 1 << 20, 2, 2], Router::Input), 1, &narrow).err(),
        plan(linear(LinearDirection::Forward), &config([8, 1 << 16, 1, 1], Router::Input), 1, &narrow).err(),
        // A workgroup for each expert, and one for the batch.
        plan(
            Operation::GateLosses(GateLossesOptions::default()),
            &config([8, 8, 2, 16], Router::Input),
            1,
            &narrow,
        )
        .err(),
    ] {
        over(error.expect("too many workgroups"), Limit::ComputeWorkgroupsPerDimension);
    }
    let huge = config([1 << 20, 1 << 20, 1 << 10, 4], Router::Input);
    over(huge.layout().expect_err("too many parameters"), Limit::Elements);
    let largest = config([u32::MAX; 4], Router::Latent);
    assert_eq!((largest.parameter_count(), largest.state_len()), (u64::MAX, u32::MAX));
    over(largest.layout().expect_err("too many parameters"), Limit::Elements);
}

#[test]
fn over_the_binding_limit() {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 100, ..KERNELS.profile().limits.clone() };
    let kernels =
        Kernels::with_profile(&GPU.device, &GPU.queue, DeviceProfile { limits, ..KERNELS.profile().clone() });
    let buffers = Buffers::new();
    let error = buffers.forward().bind(&kernels).expect_err("must be refused");
    mentions_all(&error, &["x", "max_storage_buffer_binding_size", "128", "100"]);
}

#[test]
fn too_few_storage_buffers() {
    let limits = wgpu::Limits { max_storage_buffers_per_shader_stage: 3, ..KERNELS.profile().limits.clone() };
    let kernels =
        Kernels::with_profile(&GPU.device, &GPU.queue, DeviceProfile { limits, ..KERNELS.profile().clone() });
    let buffers = Buffers::new();
    let error = buffers.forward().bind(&kernels).expect_err("must be refused");
    mentions_all(&error, &["forward", "max_storage_buffers_per_shader_stage", "4", "3"]);
}

#[test]
fn every_operation_checks_its_tensors() {
    let buffers = Buffers::new();
    let small = zeroed("small", 4);
    let whole = |buffer| Tensor::from(buffer);
    let bind = |operation: Operation, tensors: &[(&str, Tensor<'_>)]| {
        KERNELS.prepare(&operation, &CONFIG, TOKENS).and_then(|prepared| prepared.bind(tensors)).map(drop)
    };
    let mut tensors = vec![
        ("g", whole(&buffers.x)),
        ("parameters", whole(&buffers.parameters)),
        ("saved", whole(&buffers.saved)),
        ("dx", whole(&buffers.y)),
    ];
    let operation = "backward_input";
    let missing = Err(Error::MissingTensor { operation, tensor: "dstate" });
    assert_eq!(bind(backward_input(), &tensors), missing);
    tensors.push(("dstate", whole(&small)));
    let error = bind(backward_input(), &tensors);
    assert!(
        matches!(error, Err(Error::TooSmall { tensor: "dstate", needed: 64, given: 16, .. })),
        "{error:?}"
    );
    tensors.push(("y", whole(&buffers.y)));
    let unknown = Err(Error::UnknownTensor { operation, tensor: "y".to_owned() });
    assert_eq!(bind(backward_input(), &tensors), unknown);
    let linear = |bias, direction| {
        let options = LinearOptions { bias: true, direction, ..LinearOptions::default() };
        let [source, target] = direction.names();
        let (x, y) = (whole(&buffers.x), whole(&buffers.y));
        bind(Operation::Linear(options), &[(source, x), ("weight", x), (target, y), ("bias", bias)])
    };
    let error = linear(whole(&small), LinearDirection::Forward);
    assert!(matches!(error, Err(Error::TooSmall { tensor: "bias", needed: 32, given: 16, .. })), "{error:?}");
    let error = linear(whole(&buffers.saved), LinearDirection::Backward);
    assert_eq!(error, Err(Error::UnusedTensor { tensor: "bias", reason: "W0^T g has no bias" }));
}

#[test]
fn no_batch_is_larger_than_what_was_prepared() {
    let buffers = Buffers::new();
    let forward = buffers.forward().bind(&KERNELS).expect("it fits");
    assert_eq!(Batch::new(&KERNELS, 0).err(), Some(Error::ZeroDimension { dimension: "tokens" }));
    let mut batch = Batch::new(&KERNELS, TOKENS).expect("it fits");
    GPU.submit(|pass| forward.encode(pass, &batch)).expect("as many as were prepared");
    batch.set(&GPU.queue, TOKENS + 1).expect("a number of tokens");
    let error = GPU.submit(|pass| forward.encode(pass, &batch)).map(drop);
    let (operation, capacity, tokens) = ("forward", TOKENS, TOKENS + 1);
    assert_eq!(error, Err(Error::OverCapacity { operation, capacity, tokens }));
}

#[test]
fn adamw_checks_its_numbers() {
    type Set = fn(f32) -> AdamWHyper;
    let buffer = || zeroed("adamw", 16);
    let (parameters, gradients, moments, status) = (buffer(), buffer(), buffer(), buffer());
    let prepare_with = |elements, status, hyper| {
        AdamW::prepare(
            &KERNELS,
            &AdamWDescriptor {
                buffers: &[AdamWBuffers {
                    elements,
                    parameters: (&parameters).into(),
                    gradients: (&gradients).into(),
                    moments: (&moments).into(),
                }],
                status,
                hyper,
                ..Default::default()
            },
        )
    };
    let prepare = |elements, hyper| prepare_with(elements, None, hyper);
    let valid = AdamWHyper::default();
    prepare(8, valid).expect("valid numbers");
    let clipping = AdamWHyper { max_norm: Some(1.0), ..valid };
    prepare_with(8, Some((&status).into()), clipping).expect("valid numbers");
    assert!(matches!(
        prepare_with(8, Some((&status).into()), valid),
        Err(Error::UnusedTensor { tensor: "status", .. })
    ));
    assert!(matches!(
        prepare_with(8, Some(Tensor::new(&status, 0, 4)), clipping),
        Err(Error::TooSmall { tensor: "status", needed: 8, given: 4, .. })
    ));
    for (buffer, written, other) in [
        (&parameters, "parameters", "status"),
        (&moments, "moments", "status"),
        // No single dispatch writes the status and reads the gradients, but the whole step does.
        (&gradients, "status", "gradients"),
    ] {
        let shared = prepare_with(8, Some(Tensor::new(buffer, 0, 8)), clipping);
        let Some(Error::Overlap { written: found, other: beside, .. }) = shared.as_ref().err() else {
            panic!("{shared:?}")
        };
        assert_eq!((*found, *beside), (written, other));
    }
    assert_eq!(prepare(0, valid).err(), Some(Error::ZeroDimension { dimension: "elements" }));
    assert!(matches!(prepare(6, valid), Err(Error::InvalidNumber { name: "elements", value: 6.0, .. })));
    assert!(matches!(prepare(16, valid), Err(Error::TooSmall { tensor: "moments", .. })));
    for elements in [usize::MAX, usize::MAX - 3, (1 << 30) + 4] {
        let error = prepare(elements, valid).expect_err("too many");
        assert!(matches!(error, Error::OverLimit { needed, .. } if needed == elements as u64), "{error}");
    }
    let refused = |error: Error, name: &str, value: f32| {
        let Error::InvalidNumber { name: named, value: given, .. } = error else { panic!("{error}") };
        assert_eq!((named, given.to_bits()), (name, f64::from(value).to_bits()), "{error}");
    };
    // Devices may treat numbers below the normal ones as zero.
    let [nan, infinity, denormal] = [f32::NAN, f32::INFINITY, 1e-39];
    let invalid: [(&str, Set, &[f32]); 5] = [
        ("beta1", |beta1| AdamWHyper { beta1, ..AdamWHyper::default() }, &[1.0, -0.1, nan]),
        ("beta2", |beta2| AdamWHyper { beta2, ..AdamWHyper::default() }, &[1.0, -0.1, nan]),
        (
            "epsilon",
            |epsilon| AdamWHyper { epsilon, ..AdamWHyper::default() },
            &[0.0, -1e-8, denormal, f32::MIN_POSITIVE.next_down(), infinity, nan],
        ),
        (
            "weight_decay",
            |weight_decay| AdamWHyper { weight_decay, ..AdamWHyper::default() },
            &[-0.1, infinity, nan],
        ),
        (
            "max_norm",
            |max_norm| AdamWHyper { max_norm: Some(max_norm), ..AdamWHyper::default() },
            &[0.0, -1.0, denormal, infinity, nan],
        ),
    ];
    for (name, hyper, values) in invalid {
        for &value in values {
            refused(prepare(8, hyper(value)).expect_err("must be refused"), name, value);
        }
    }
    let smallest = f32::MIN_POSITIVE;
    prepare(8, AdamWHyper { epsilon: smallest, max_norm: Some(smallest), weight_decay: 0.0, ..valid })
        .expect("the smallest numbers that every device has");
    let error = prepare(8, AdamWHyper { epsilon: denormal, ..valid }).expect_err("must be refused");
    mentions_all(&error, &["epsilon", "e-39", "1.2e-38"]);
}

#[test]
fn adamw_checks_every_step() {
    let hyper = AdamWHyper::default();
    for (step, rate) in [(1, 1e-3), (u32::MAX, 1e-3), (1, 0.0), (1, 1e-40), (1, 3e37)] {
        hyper.uniform(step, rate, 1.0).expect("a valid step");
    }
    let error = hyper.uniform(0, 1e-3, 1.0).expect_err("the first is 1");
    assert!(matches!(error, Error::InvalidNumber { name: "step", .. }), "{error}");
    // f32 cannot hold 3e38 / (1 - 0.9), 1e30 * 1e30, or 1e32 with the largest bias correction, 2^24.
    let slow = 1.0f32.next_down();
    for (hyper, rate) in [
        (hyper, f32::NAN),
        (hyper, f32::INFINITY),
        (hyper, -1e-3),
        (hyper, 3e38),
        (AdamWHyper { weight_decay: 1e30, ..hyper }, 1e30),
        (AdamWHyper { beta1: slow, ..hyper }, 1e32),
    ] {
        let error = hyper.uniform(1, rate, 1.0).expect_err("must be refused");
        let Error::InvalidNumber { name: "learning_rate", value, .. } = error else { panic!("{error}") };
        assert_eq!(value.to_bits(), f64::from(rate).to_bits());
    }
    // Betas next to 1 still have a bias correction.
    let uniform = AdamWHyper { beta1: slow, beta2: slow, ..hyper }.uniform(1, 1e-3, 1.0).expect("it fits");
    let words: [f32; 16] = bytemuck::cast(uniform);
    let used = words[..3].iter().chain(&words[4..7]).chain(&words[8..14]);
    assert!(used.clone().all(|word| word.is_finite() && *word > 0.0), "{words:?}");
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1.5] {
        let error = hyper.uniform(1, 1e-3, scale).expect_err("must be refused");
        assert!(matches!(error, Error::InvalidNumber { name: "gradient_scale", .. }), "{error}");
    }
    // Groups have rates and decays of their own.
    let b = GroupHyper { rate: 16.0, weight_decay: Some(0.5) };
    let grouped = AdamWHyper { groups: Groups { b, ..Groups::default() }, ..hyper };
    let words: [f32; 16] = bytemuck::cast(grouped.uniform(1, 1e-3, 1.0).expect("a valid step"));
    assert_eq!(words[..3], [0.99999, 0.992, 0.99999]);
    assert_eq!(words[4], words[6]);
    assert!((words[4] - 0.01).abs() < 1e-8 && (words[5] - 16.0 * words[4]).abs() < 1e-8, "{words:?}");
    for (group, name) in [
        (GroupHyper { rate: -1.0, weight_decay: None }, "the rate of B"),
        (GroupHyper { rate: 1.0, weight_decay: Some(f32::NAN) }, "the weight_decay of B"),
    ] {
        let hyper = AdamWHyper { groups: Groups { b: group, ..Groups::default() }, ..hyper };
        let error = AdamW::prepare(&KERNELS, &AdamWDescriptor { hyper, ..Default::default() });
        let error = error.expect_err("must be refused");
        assert!(matches!(error, Error::InvalidNumber { name: actual, .. } if actual == name), "{error}");
    }
    // Whose groups, nobody says.
    let all = [zeroed("parameters", 8), zeroed("gradients", 8), zeroed("moments", 16)];
    let [parameters, gradients, moments] = all.each_ref().map(Tensor::from);
    let buffers = &[AdamWBuffers { elements: 8, parameters, gradients, moments }];
    let error = AdamW::prepare(&KERNELS, &AdamWDescriptor { buffers, hyper: grouped, ..Default::default() });
    mentions_all(&error.expect_err("there are no adapters"), &["number of adapters", "groups differ"]);
    // Adapters that lie nowhere.
    let layout = Config { d_in: 1, d_out: 1, rank: 1, experts: 1, ..CONFIG }.layout().expect("a valid layer");
    assert_eq!(layout.len(), 8);
    for (adapter, words) in [
        ((1, 0, layout), ["an adapter's buffer is 1", "one of the 1 buffers"]),
        ((0, 2, layout), ["an adapter's first element is 2", "a multiple of four"]),
        ((0, 4, layout), ["an adapter's first element is 4", "with 8 elements after it in its buffer's 8"]),
    ] {
        let adapters = &[adapter];
        let descriptor = AdamWDescriptor { buffers, hyper: grouped, adapters, ..Default::default() };
        mentions_all(&AdamW::prepare(&KERNELS, &descriptor).expect_err("it lies nowhere"), &words);
    }
}

#[test]
fn packing_checks_every_length() {
    let layout = CONFIG.layout().expect("a valid configuration");
    let adapter = Adapter::initialise(&CONFIG, 0).expect("a valid configuration");
    assert_eq!(layout.pack(&adapter).and_then(|packed| layout.unpack(&packed)).as_ref(), Ok(&adapter));
    let short = |adapter: &Adapter, what: &str| {
        let error = layout.pack(adapter).expect_err("must be refused");
        assert!(matches!(&error, Error::WrongLength { what: named, .. } if named == what), "{error}");
    };
    short(&Adapter { a: vec![0.0; 3], ..adapter.clone() }, "A");
    short(&Adapter { router: vec![], ..adapter.clone() }, "W_g");
    short(&Adapter { b: vec![vec![0.0; 16]], ..adapter.clone() }, "the list of B_i");
    short(&Adapter { b: vec![vec![0.0; 16], vec![0.0; 15]], ..adapter }, "B_1");
    assert!(matches!(layout.unpack(&[0.0; 3]), Err(Error::WrongLength { given: 3, .. })));
}

#[test]
fn a_device_error_is_an_error_and_not_a_panic() {
    // A destroyed device refuses every pipeline.
    let gpu = pollster::block_on(Gpu::from_env()).expect("the device under test");
    let buffers = Buffers::new();
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    gpu.device.destroy();
    let error = buffers.forward().bind(&kernels).expect_err("must be refused");
    assert!(matches!(error, Error::Device { .. }), "{error}");
}

/// Plans every operation and counts its least work. Returns the error of each attempt, if any.
fn plans(config: &Config, tokens: u32, device: &DeviceProfile) -> Vec<Option<Error>> {
    let linears = [LinearDirection::Forward, LinearDirection::Backward].map(linear);
    let operations = [forward(), backward_input(), backward_params()].into_iter().chain(linears);
    let planned = |operation: Operation| {
        [
            plan(operation, config, tokens, device).err(),
            candidates(operation, config, tokens, device).err(),
            operation.least_work(config, tokens).err(),
        ]
    };
    operations.flat_map(planned).collect()
}

#[test]
fn no_work_overflows() {
    let huge = Config { d_in: 1 << 31, d_out: 1 << 31, ..Config::default() };
    let work = linear(LinearDirection::Forward).least_work(&huge, 1).expect("kernels can count the tokens");
    assert_eq!(work.bytes, u64::MAX);
    let flat = linear(LinearDirection::Forward).least_work(&Config::default(), 1);
    assert_eq!(flat, Err(Error::ZeroDimension { dimension: "d_in" }));
}

#[test]
fn no_number_of_tokens_overflows() {
    let unlimited = wgpu::Limits {
        max_storage_buffer_binding_size: u64::MAX,
        max_buffer_size: u64::MAX,
        max_compute_workgroup_storage_size: u32::MAX,
        max_compute_workgroups_per_dimension: u32::MAX,
        ..wgpu::Limits::default()
    };
    for limits in [wgpu::Limits::default(), unlimited] {
        for busy in [0, 256, u32::MAX] {
            for subgroup_lanes in [1, 32] {
                let device = DeviceProfile { subgroup_lanes, ..DeviceProfile::new(limits.clone(), busy) };
                for shape in [[1, 1, 1, 1], [8, 8, 2, 2], [4096, 11008, 16, 4], [1 << 20, 1 << 20, 2, 2]] {
                    for tokens in [1, 1 << 31, u32::MAX - 1, u32::MAX] {
                        let config = config(shape, Router::Latent);
                        let errors = plans(&config, tokens, &device);
                        // A tensor with more elements than kernels can count is refused on any device.
                        if u64::from(tokens) * u64::from(shape[0]) > 1 << 31 {
                            assert!(
                                errors.iter().all(|error| matches!(error, Some(Error::OverLimit { .. }))),
                                "{errors:?}"
                            );
                        }
                    }
                }
            }
        }
    }
    let buffers = Buffers::new();
    refused(&Forward { tokens: u32::MAX, ..buffers.forward() }, &["4294967295 tokens", "fewer tokens"]);
}

#[test]
fn a_refusal_takes_no_time() {
    // The first has the largest possible packed layout. No plan makes the second's loops short enough.
    let bounded = DeviceProfile {
        max_loop_iterations: 60_000,
        subgroup_lanes: 8,
        software: true,
        ..DeviceProfile::new(wgpu::Limits::default(), 4)
    };
    let free = DeviceProfile { max_loop_iterations: u64::MAX, ..bounded.clone() };
    for (shape, device) in [([4, 4, 16_383, 16_383], &free), ([4, 4, 400, 400], &bounded)] {
        let config = config(shape, Router::Input);
        let begin = std::time::Instant::now();
        let refused = plan(backward_input(), &config, 16, device);
        assert!(matches!(refused, Err(Error::OverLimit { .. })), "{refused:?}");
        let refused = candidates(backward_input(), &config, 16, device);
        assert!(matches!(refused, Err(Error::OverLimit { .. })), "{refused:?}");
        // This takes milliseconds, and less than a second even on a busy machine. Trying every plan took
        // longer.
        assert!(begin.elapsed().as_secs_f64() < 1.0, "{:?}", begin.elapsed());
    }
}

#[test]
fn many_tokens_are_split_until_a_driver_lets_their_loops_run() {
    // The workgroups keep the device busy without splits, so only the bound on loops is a reason to split the
    // tokens.
    let config = config([256, 256, 64, 8], Router::Input);
    let bounded = DeviceProfile {
        max_loop_iterations: 60_000,
        software: true,
        ..DeviceProfile::new(wgpu::Limits::default(), 4)
    };
    let split = plan(backward_params(), &config, 1 << 16, &bounded).expect("it can be split");
    let Some(Choice::Outer(choice)) = split.choice else { panic!("{:?}", split.choice) };
    assert!(choice.splits >= 2, "{choice:?}");
    let few = DeviceProfile { max_loop_iterations: 20, ..bounded };
    let error = plan(backward_params(), &config, 1 << 16, &few).expect_err("20 are few");
    mentions_all(&error, &["loop iterations", "driver's bound", "20", "fewer tokens"]);
}

#[test]
fn odd_claims_of_subgroups_do_no_harm() {
    let guaranteed = DeviceProfile::of(&GPU.device);
    for subgroup_lanes in [0, 2, 3, 5, 7, 31, 33, 65, 1 << 31, u32::MAX] {
        let device = DeviceProfile { subgroup_lanes, ..DeviceProfile::new(wgpu::Limits::default(), 64) };
        for shape in [[64, 64, 8, 4], [8, 8, 1, 1], [5, 7, 300, 120], [4, 4, 16_383, 16_383]] {
            let refused = plans(&config(shape, Router::Input), 33, &device);
            // The others may be refused.
            if shape[2] < 100 {
                assert!(refused.iter().all(Option::is_none), "{shape:?}: {refused:?}");
            }
        }
        // Kernels do not trust a profile that claims more than the device guarantees.
        let limits = wgpu::Limits {
            max_compute_workgroups_per_dimension: u32::MAX,
            max_compute_workgroup_storage_size: 1 << 14,
            ..guaranteed.limits.clone()
        };
        let claimed =
            DeviceProfile { limits, subgroup_lanes, max_loop_iterations: u64::MAX, ..guaranteed.clone() };
        let kernels = Kernels::with_profile(&GPU.device, &GPU.queue, claimed);
        assert_eq!(kernels.profile().subgroup_lanes, subgroup_lanes.min(guaranteed.subgroup_lanes));
        assert_eq!(kernels.profile().max_loop_iterations, guaranteed.max_loop_iterations);
        let [planned, guaranteed] = [&kernels.profile().limits, &guaranteed.limits];
        assert_eq!(
            planned.max_compute_workgroups_per_dimension,
            guaranteed.max_compute_workgroups_per_dimension
        );
        // A limit below the device's is the caller's choice.
        assert_eq!(planned.max_compute_workgroup_storage_size, 1 << 14);
    }
}

#[test]
fn what_may_share_a_buffer_does_not_depend_on_the_plan() {
    let config = config([8, 8, 2, 2], Router::Input);
    let tokens = 300;
    let len = config.layout().expect("a valid configuration").len();
    let state = tokens as usize * config.state_len() as usize;
    let [x, g] = [tokens as usize * 8 + 16 * len; 2].map(|elements| zeroed("x or g", elements));
    let (saved, dstate) = (zeroed("saved", state), zeroed("dstate", state));
    // A range of the same buffer behind x, which overlaps nothing.
    let behind = Tensor::new(&x, (4 * tokens as u64 * 8).next_multiple_of(256), 4 * len as u64);
    let own = zeroed("gradients", len);
    let operation = backward_params();
    let planner = KERNELS.planner();
    let choices = planner.choices(&operation, &config, tokens).expect("it fits");
    let splits = |choice: &Choice| matches!(choice, Choice::Outer(OuterChoice { splits: 2.., .. }));
    let [split, whole] = [true, false].map(|wanted| {
        choices.iter().copied().find(|choice| splits(choice) == wanted).expect("tokens may be split or not")
    });
    for choice in [split, whole] {
        let recording = planner.plan_as(choice, &operation, &config, tokens).expect("it fits");
        let bind = |gradients, scratch: Option<Tensor<'_>>| {
            let mut tensors = vec![
                ("x", Tensor::new(&x, 0, 4 * u64::from(tokens) * 8)),
                ("g", Tensor::new(&g, 0, 4 * u64::from(tokens) * 8)),
                ("saved", (&saved).into()),
                ("dstate", (&dstate).into()),
                ("gradients", gradients),
            ];
            tensors.extend(scratch.map(|scratch| ("scratch", scratch)));
            KERNELS.bind(&recording, &tensors).map(drop)
        };
        assert_eq!(bind((&own).into(), None), Ok(()), "{choice:?}");
        let aliased = Error::Aliased { written: "gradients", other: "x" };
        assert_eq!(bind(behind, None), Err(aliased), "{choice:?}");
        let scratch = Tensor::new(&g, (4 * tokens as u64 * 8).next_multiple_of(256), 16 * len as u64);
        let aliased = Error::Aliased { written: "scratch", other: "g" };
        assert_eq!(bind((&own).into(), Some(scratch)), Err(aliased), "{choice:?}");
        // One step writes the scratch memory and another only reads it. It may share a buffer with no other
        // tensor.
        let gradients = zeroed("gradients and scratch", 64 + 17 * len);
        let behind = Tensor::new(&gradients, (4 * len as u64).next_multiple_of(256), 16 * len as u64);
        let aliased = Error::Aliased { written: "scratch", other: "gradients" };
        let shared = bind(Tensor::new(&gradients, 0, 4 * len as u64), Some(behind));
        assert_eq!(shared, Err(aliased), "{choice:?}");
    }
}

#[test]
fn recordings_for_another_device_are_refused() {
    let buffers = Buffers::new();
    let tensors = |saved: bool| {
        let mut tensors = vec![
            ("x", Tensor::from(&buffers.x)),
            ("parameters", (&buffers.parameters).into()),
            ("y", (&buffers.y).into()),
        ];
        if saved {
            tensors.push(("saved", (&buffers.saved).into()));
        }
        tensors
    };
    let own = KERNELS.profile();
    let planned = |profile: DeviceProfile| plan(forward(), &CONFIG, TOKENS, &profile).expect("it fits");
    KERNELS.bind(&planned(own.clone()), &tensors(false)).expect("this device's own");
    // Larger subgroups than any device guarantees.
    let wide = planned(DeviceProfile { subgroup_lanes: 64, ..own.clone() });
    let error = KERNELS.bind(&wide, &tensors(false)).expect_err("its lanes are not in one subgroup");
    let Error::OverLimit { limit: Limit::SubgroupLanes, needed, allowed, .. } = error else {
        panic!("{error}")
    };
    assert_eq!([needed, allowed], [64, own.subgroup_lanes.max(1).into()]);
    // Loops that the driver would end early.
    if own.max_loop_iterations < u64::MAX {
        let free = DeviceProfile { max_loop_iterations: u64::MAX, ..own.clone() };
        let long = plan(backward_params(), &CONFIG, 1 << 20, &DeviceProfile { busy_workgroups: 1, ..free });
        let error = KERNELS.prepare_recordings(vec![long.expect("it fits")]).expect_err("it would be ended");
        assert!(matches!(error, Error::OverLimit { limit: Limit::LoopIterations, .. }), "{error}");
    }
    // Lists that no planner makes.
    let many = plan(forward(), &CONFIG, 64, own).expect("it fits");
    let few = planned(own.clone());
    let wider = plan(forward(), &Config { d_out: 12, ..CONFIG }, 64, own).expect("it fits");
    for list in
        [vec![], vec![many.clone(), few.clone()], vec![few.clone(), few.clone()], vec![few.clone(), wider]]
    {
        let refused = KERNELS.prepare_recordings(list);
        assert!(matches!(refused, Err(Error::Recordings { .. })), "{refused:?}");
    }
    KERNELS.prepare_recordings(vec![few, many]).expect("as Plans::Several has them");
}

#[test]
fn an_optimiser_takes_no_batch() {
    let buffers = Buffers::new();
    let recordings = KERNELS.planner().adamw(&[8], &AdamWHyper::default()).expect("it fits");
    let tensors = [("parameters", &buffers.parameters), ("gradients", &buffers.x), ("moments", &buffers.y)];
    let tensors = tensors.map(|(name, buffer)| (name, Tensor::from(buffer)));
    let bound = KERNELS.bind(&recordings[0], &tensors).expect("it fits");
    let batch = Batch::new(&KERNELS, 1).expect("it fits");
    let refused = GPU.submit(|pass| bound.encode(pass, &batch)).map(drop);
    assert_eq!(refused, Err(Error::NoBatch { operation: "adamw" }));
    let clipping = AdamWHyper { max_norm: Some(1.0), ..AdamWHyper::default() };
    for hyper in [AdamWHyper::default(), clipping] {
        let nothing = AdamW::prepare(&KERNELS, &AdamWDescriptor { hyper, ..AdamWDescriptor::default() });
        assert!(matches!(nothing, Err(Error::ZeroDimension { .. })), "{nothing:?}");
    }
}

#[test]
fn a_tensor_is_given_once() {
    let buffers = Buffers::new();
    let prepared = KERNELS.prepare(&forward(), &CONFIG, TOKENS).expect("it fits");
    let tensors = [
        ("x", Tensor::from(&buffers.x)),
        ("parameters", (&buffers.parameters).into()),
        ("y", (&buffers.y).into()),
        ("x", (&buffers.saved).into()),
    ];
    let twice = prepared.bind(&tensors).map(drop);
    let tensor = "x".to_owned();
    assert_eq!(twice, Err(Error::DuplicateTensor { operation: "forward", tensor }));
}

#[test]
fn in_pools_nothing_overlaps() {
    let config = config([8, 8, 2, 2], Router::Input);
    let state = zeroed("saved or dstate", 64);
    let (x, gradients) = (zeroed("x and g", 64), zeroed("gradients", 128));
    let tensors = [("x", &x), ("g", &x), ("saved", &state), ("dstate", &state), ("gradients", &gradients)];
    let tensors = tensors.map(|(name, buffer)| (name, Tensor::from(buffer)));
    let bind = |kernels: &Kernels| {
        kernels
            .prepare(&backward_params(), &config, TOKENS)
            .and_then(|prepared| prepared.bind(&tensors))
            .map(drop)
    };
    assert_eq!(bind(&KERNELS), Ok(()), "both are only read");
    let pooled = bind(&KERNELS.pooled());
    assert!(matches!(pooled, Err(Error::Overlap { .. })), "shaders declare them as written: {pooled:?}");
}

#[test]
fn strides() {
    let strided = |x_stride, d_in| {
        let options = ForwardOptions { x_stride, ..ForwardOptions::default() };
        plan(Operation::Forward(options), &Config { d_in, ..CONFIG }, TOKENS, KERNELS.profile()).map(drop)
    };
    assert_eq!(strided(Some(12), 8), Ok(()));
    assert_eq!(strided(Some(9), 9), Ok(()), "rows that touch");
    for (stride, width) in [(4, 8), (10, 8), (10, 9), (0, 8)] {
        let refused = Err(Error::Stride { tensor: "x", stride, width: width.into() });
        assert_eq!(strided(Some(stride), width), refused);
    }
}

#[test]
fn a_table_asks_for_no_more_scratch_than_the_planner() {
    let device = DeviceProfile::new(wgpu::Limits::default(), 64);
    let config = config([512, 512, 8, 4], Router::Input);
    let tokens = 1 << 20;
    let copies = config.layout().expect("a valid configuration").bytes();
    let most = candidates(backward_params(), &config, tokens, &device).expect("it fits");
    let most = most.iter().map(scratch_bytes).max().expect("there are plans");
    // The copies are a few times as many as fill the device, and far fewer than a binding could hold.
    assert!((2..=4 * 64).contains(&(most / copies)), "{most}");
    // For the sums of a shrink, the planner has no scratch memory with many tokens, and one set of sums with
    // few.
    let (wide, many) = (self::config([4096, 4096, 8, 4], Router::Input), 1 << 16);
    for tokens in [1, many] {
        let most = candidates(backward_input(), &wide, tokens, &device).expect("it fits");
        let most = most.iter().map(scratch_bytes).max().expect("there are plans");
        for (quads, summed_columns, shrink_splits) in [(1, 4, 16), (8, 16, 16), (8, 4, 2), (8, 4, u32::MAX)] {
            let choice = FusedChoice { quads, summed_columns, shrink_splits, ..FusedChoice::default() };
            let tuned = plan_tuned(backward_input(), &wide, tokens, &device, Choice::Fused(choice));
            let taken = scratch_bytes(&tuned.expect("it fits"));
            assert!(taken <= most, "{choice:?} takes {taken} bytes, not {most}");
        }
    }
    for splits in [2, 64, 300, 1000, 10_000, u32::MAX] {
        let choice = Choice::Outer(OuterChoice { rows: 16, splits, ..OuterChoice::default() });
        let tuned = plan_tuned(backward_params(), &config, tokens, &device, choice).expect("it fits");
        let taken = scratch_bytes(&tuned);
        assert!(taken <= most, "{splits} splits take {taken} bytes");
    }
}

/// Prints the device's profile, for comparison with that of another process.
#[test]
#[ignore = "run by plans_do_not_depend_on_the_cores_of_a_process"]
fn print_the_profile() {
    println!("profile: {:?}", DeviceProfile::of(&GPU.device));
}

#[cfg(target_os = "linux")]
#[test]
fn plans_do_not_depend_on_the_cores_of_a_process() {
    let own = format!("profile: {:?}", DeviceProfile::of(&GPU.device));
    let executable = std::env::current_exe().expect("this test");
    let mut one_core = std::process::Command::new("taskset");
    one_core.args(["-c", "0"]).arg(executable);
    let output = one_core.args(["--exact", "errors::print_the_profile", "--ignored", "--nocapture"]).output();
    let output = output.expect("taskset, of util-linux");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains(&own), "{own}\nis on one core\n{text}");
}

#[test]
fn the_cause_of_an_unusable_weight_is_no_number_of_tokens() {
    let limits = wgpu::Limits { max_storage_buffer_binding_size: 100, ..KERNELS.profile().limits.clone() };
    let kernels =
        Kernels::with_profile(&GPU.device, &GPU.queue, DeviceProfile { limits, ..KERNELS.profile().clone() });
    let buffers = Buffers::new();
    let prepared = kernels.prepare(&linear(LinearDirection::Forward), &CONFIG, 1).expect("it can be planned");
    let tensors = [("x", &buffers.x), ("weight", &buffers.y), ("y", &buffers.saved)];
    let tensors = tensors.map(|(name, buffer)| (name, Tensor::from(buffer)));
    let error = prepared.bind(&tensors).expect_err("64 elements are over the limit");
    mentions_all(&error, &["weight (8 x 8 f32)", "256", "100", "split the layer"]);
    assert!(!error.to_string().contains("tokens"), "{error}");
    let one = Forward { tokens: 1, ..buffers.forward() };
    let error = one.bind(&kernels).expect_err("the parameters are over the limit");
    mentions_all(&error, &["parameters", "rank"]);
    assert!(!error.to_string().contains("tokens"), "{error}");
}
