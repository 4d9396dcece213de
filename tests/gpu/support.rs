//! The device under test, guarded tensors, comparison with the twin, and one training step of one
//! layer through every kernel.

use std::sync::LazyLock;

use hydralora::device::Gpu;
use hydralora::twin::{self, Approx};
use hydralora::{Adapter, Config, Kernels, Router, Tensor, WriteMode, wgpu};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::layer::{Layer, Tensors, Writes};

/// The device that all tests share.
pub static GPU: LazyLock<Gpu> = LazyLock::new(|| match pollster::block_on(Gpu::from_env()) {
    Ok(gpu) => {
        eprintln!("device under test: {}", gpu.describe());
        gpu
    }
    Err(error) => panic!("these tests need a GPU or a software driver.\n{error}"),
});

/// The kernels that all tests share.
pub static KERNELS: LazyLock<Kernels> = LazyLock::new(|| Kernels::new(&GPU.device));

/// Elements in each guard band: a whole number of any device's storage alignment.
const GUARD: usize = 64;

/// What guard bands hold: a finite number that no kernel computes.
const GUARD_BITS: u32 = 0xabad_cafe;

/// A tensor between two guard bands, in a buffer of its own.
pub struct Guarded {
    buffer: wgpu::Buffer,
    len: usize,
}

impl Guarded {
    /// A tensor holding `data`.
    pub fn new(name: &str, data: &[f32]) -> Self {
        let guard = [f32::from_bits(GUARD_BITS); GUARD];
        Self { buffer: GPU.upload(name, &[&guard, data, &guard].concat()), len: data.len() }
    }

    /// An output tensor: NaN everywhere, so that an element nobody writes is seen.
    pub fn poisoned(name: &str, len: usize) -> Self {
        Self::new(name, &vec![f32::NAN; len])
    }

    /// An output tensor: poisoned where it is overwritten, `before` where it is added to.
    pub fn output(name: &str, before: &[f32], write: WriteMode) -> Self {
        match write {
            WriteMode::Overwrite => Self::poisoned(name, before.len()),
            WriteMode::Accumulate => Self::new(name, before),
        }
    }

    /// The tensor, for an operation.
    pub fn tensor(&self) -> Tensor<'_> {
        Tensor::new(&self.buffer, 4 * GUARD as u64, 4 * self.len as u64)
    }

    /// The tensor's contents; its guard bands must be untouched.
    pub fn read(&self) -> Vec<f32> {
        let all = GPU.read_blocking(&self.buffer).expect("reading a tensor back");
        let (before, rest) = all.split_at(GUARD);
        let (data, after) = rest.split_at(self.len);
        for (at, value) in before.iter().chain(after).enumerate() {
            assert_eq!(value.to_bits(), GUARD_BITS, "guard element {at} was overwritten with {value}");
        }
        data.to_vec()
    }
}

/// The ratios error / bound of everything compared so far, to be shown at the end of a test.
#[derive(Default)]
pub struct Ratios {
    seen: Vec<f64>,
    worst: (f64, String),
}

impl Ratios {
    /// Compares a kernel's result with the twin's.
    pub fn compare(&mut self, name: &str, actual: &[f32], expected: &[Approx]) {
        assert_eq!(actual.len(), expected.len(), "{name}: lengths differ");
        assert!(!actual.is_empty(), "{name}: nothing to compare");
        for (at, (&actual, expected)) in actual.iter().zip(expected).enumerate() {
            assert!(
                expected.value.is_finite() && expected.bound.is_finite(),
                "{name}[{at}]: the twin gives {expected:?}"
            );
            assert!(actual.is_finite(), "{name}[{at}] is {actual}, expected {expected:?}");
            let ratio = (f64::from(actual) - expected.value).abs() / expected.bound.max(f64::MIN_POSITIVE);
            assert!(ratio <= 1.0, "{name}[{at}] is {actual}, {ratio:.2} times the bound from {expected:?}");
            self.seen.push(ratio);
            if ratio > self.worst.0 {
                self.worst = (ratio, format!("{name}[{at}]"));
            }
        }
    }

    /// Prints the distribution. Nothing compared is a failure.
    pub fn report(mut self, test: &str) {
        assert!(!self.seen.is_empty(), "{test} compared nothing");
        self.seen.sort_by(f64::total_cmp);
        let at = |fraction: f64| self.seen[((self.seen.len() - 1) as f64 * fraction) as usize];
        println!(
            "{test}: {} elements, error / bound median {:.1e}, 99 % {:.3}, worst {:.3} at {}",
            self.seen.len(),
            at(0.5),
            at(0.99),
            self.worst.0,
            self.worst.1
        );
    }
}

/// One layer with everything a training step needs: inputs, a cotangent, and what outputs hold
/// before they are accumulated into.
#[derive(Debug, Clone)]
pub struct Case {
    pub config: Config,
    pub tokens: usize,
    pub adapter: Adapter,
    pub x: Vec<f32>,
    pub g: Vec<f32>,
    pub y_before: Vec<f32>,
    pub dx_before: Vec<f32>,
    pub gradients_before: Vec<f32>,
}

/// What a training step computes on the GPU.
pub struct Step {
    pub y: Vec<f32>,
    pub saved: Vec<f32>,
    pub dx: Vec<f32>,
    pub dstate: Vec<f32>,
    pub gradients: Vec<f32>,
}

/// Numbers in -1..1, always the same for a seed.
pub fn random(seed: u64, len: usize) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

/// A configuration with a scaling that is no power of two.
pub fn config([d_in, d_out, rank, experts]: [u32; 4], router: Router) -> Config {
    Config { d_in, d_out, rank, experts, scaling: 1.7, router }
}

impl Case {
    /// Random numbers everywhere.
    pub fn random(config: Config, tokens: usize, seed: u64) -> Self {
        let [d_in, d_out, rank, experts] =
            [config.d_in, config.d_out, config.rank, config.experts].map(|n| n as usize);
        let router_columns = if config.router == Router::Input { d_in } else { rank };
        let layout = config.layout().expect("a valid configuration");
        let mut seeds = (0..).map(|n| seed.wrapping_mul(1009).wrapping_add(n));
        let mut random = |len| random(seeds.next().expect("endless"), len);
        let gradients = Adapter {
            a: random(rank * d_in),
            router: random(experts * router_columns),
            b: (0..experts).map(|_| random(d_out * rank)).collect(),
        };
        Self {
            config,
            tokens,
            adapter: Adapter {
                a: random(rank * d_in),
                router: random(experts * router_columns),
                b: (0..experts).map(|_| random(d_out * rank)).collect(),
            },
            x: random(tokens * d_in),
            g: random(tokens * d_out),
            y_before: random(tokens * d_out),
            dx_before: random(tokens * d_in),
            gradients_before: layout.pack(&gradients).expect("matching shapes"),
        }
    }

    /// Runs forward and both backward kernels, in one submission.
    pub fn run(&self, kernels: &Kernels, write: WriteMode) -> Step {
        let Self { config, .. } = *self;
        let tokens = self.tokens as u32;
        let state = self.tokens * config.state_len() as usize;
        let parameters =
            config.layout().and_then(|layout| layout.pack(&self.adapter)).expect("matching shapes");
        let parameters = Guarded::new("parameters", &parameters);
        let (x, g) = (Guarded::new("x", &self.x), Guarded::new("g", &self.g));
        let y = Guarded::output("y", &self.y_before, write);
        let dx = Guarded::output("dx", &self.dx_before, write);
        let gradients = Guarded::output("gradients", &self.gradients_before, write);
        let (saved, dstate) = (Guarded::poisoned("saved", state), Guarded::poisoned("dstate", state));
        let tensors = Tensors {
            x: x.tensor(),
            g: g.tensor(),
            parameters: parameters.tensor(),
            y: y.tensor(),
            dx: dx.tensor(),
            saved: saved.tensor(),
            dstate: dstate.tensor(),
            gradients: gradients.tensor(),
        };
        let layer =
            Layer::prepare(kernels, config, tokens, &tensors, Writes::all(write)).expect("preparing a layer");
        GPU.submit(|pass| layer.encode(pass));
        Step {
            y: y.read(),
            saved: saved.read(),
            dx: dx.read(),
            dstate: dstate.read(),
            gradients: gradients.read(),
        }
    }

    /// Holds a step to the twin. Intermediate results enter with their own bounds.
    pub fn check(&self, step: &Step, write: WriteMode, ratios: &mut Ratios) {
        let Self { config, .. } = self;
        let parameters = twin::Parameters::from(&self.adapter);
        let (x, g) = (twin::exact(&self.x), twin::exact(&self.g));
        let before = |values: &[f32]| (write == WriteMode::Accumulate).then(|| twin::exact(values));

        let forward = twin::forward(config, &parameters, &x, before(&self.y_before).as_deref());
        ratios.compare("y", &step.y, &forward.y);
        ratios.compare("[h, w]", &step.saved, &self.interleave(&forward.h, &forward.w));

        let dx_before = before(&self.dx_before);
        let (h, w) = (&forward.h, &forward.w);
        let input = twin::backward_input(config, &parameters, h, w, &g, dx_before.as_deref());
        ratios.compare("dx", &step.dx, &input.dx);
        ratios.compare("[dh, dl]", &step.dstate, &self.interleave(&input.dh, &input.dl));

        let activations = twin::Activations { x: &x, g: &g, h, w, dh: &input.dh, dl: &input.dl };
        let expected = twin::backward_params(config, &activations);
        let layout = config.layout().expect("a valid configuration");
        let actual = layout.unpack(&step.gradients).expect("the layout's length");
        let packed_again = layout.pack(&actual).expect("the layout's shapes");
        assert_eq!(packed_again, step.gradients, "padding of the gradients must be zero");
        let before = layout.unpack(&self.gradients_before).expect("the layout's length");
        let mut compare = |name: &str, actual: &[f32], delta: &[Approx], before: &[f32]| {
            let expected: Vec<Approx> = match write {
                WriteMode::Overwrite => delta.to_vec(),
                WriteMode::Accumulate => delta.iter().zip(twin::exact(before)).map(|(&a, b)| a + b).collect(),
            };
            ratios.compare(name, actual, &expected);
        };
        compare("dA", &actual.a, &expected.a, &before.a);
        compare("dW_g", &actual.router, &expected.router, &before.router);
        for (i, b) in actual.b.iter().enumerate() {
            compare(&format!("dB_{i}"), b, &expected.b[i], &before.b[i]);
        }
    }

    /// Rows [first, second], as the kernels keep per-token state.
    fn interleave(&self, first: &[Approx], second: &[Approx]) -> Vec<Approx> {
        let (rank, experts) = (self.config.rank as usize, self.config.experts as usize);
        first.chunks(rank).zip(second.chunks(experts)).flat_map(|(a, b)| [a, b].concat()).collect()
    }
}
