//! Failures of devices and drivers: a lost device, no memory, pipelines that the driver refuses, many lives,
//! many threads. Each surfaces as an error or not at all; nothing panics, hangs or leaks. Most trials have
//! their own device.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hydralora::device::{Gpu, instance_from_env};
use hydralora::stopwatch::Stopwatch;
use hydralora::tuner::Tuner;
use hydralora::{
    AdamW, AdamWBuffers, AdamWDescriptor, AdamWHyper, BackwardParamsOptions, Batch, Bound, Capacity, Choice,
    Config, DeviceProfile, Element, Error, ForwardOptions, Kernels, LinearChoice, LinearOptions, LinearWay,
    Operation, Planner, Plans, Prepared, Router, Tensor, wgpu,
};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::adapters::NativeDevice;
use super::driver::{Driver, breakable_gpu, set_driver};
use crate::case::{Case, Operation as CaseOperation, Planning, Shape};
use crate::compare::Distribution;
use crate::device::{Device as _, Failure, WgpuDevice, words};
use crate::inputs::noise;
use crate::job::{Memory, Placement};
use crate::modes;
use crate::suite::Plan;

type Misfortune = fn(&WgpuDevice) -> Result<(), Failure>;

/// The trials on a device. Only wgpu's devices can be made to fail in these ways.
pub fn plans(device: &Arc<dyn NativeDevice>) -> Vec<Plan> {
    let misfortunes: [(&str, Misfortune); 9] = [
        ("a-device-lost-in-mid-use", a_device_lost_in_mid_use),
        ("a-device-lost-by-its-driver", a_device_lost_by_its_driver),
        ("a-driver-without-memory", a_driver_without_memory),
        ("out-of-memory", out_of_memory),
        ("a-refused-pipeline", a_refused_pipeline),
        ("a-panic-while-compiling", a_panic_while_compiling),
        ("scratch-of-the-caller", scratch_of_the_caller),
        ("a-thousand-lives", a_thousand_lives),
        ("many-threads", many_threads),
    ];
    if device.wgpu().is_none() {
        return Vec::new();
    }
    // A plan that is not possible gives way to another without a word.
    let matrices: Option<(&str, Misfortune)> =
        (device.profile().matrices > 0).then_some(("matrices-can-be-planned", matrices_can_be_planned));
    misfortunes
        .into_iter()
        .chain(matrices)
        .map(|(name, misfortune)| {
            let device = Arc::clone(device);
            let run = move || async move {
                in_time(move || misfortune(device.wgpu().expect("a wgpu device")))
                    .map(|()| None::<Distribution>)
            };
            Plan { refusable: true, ..Plan::new(format!("robustness/{name}"), "robustness", run) }
        })
        .collect()
}

/// Whether the frozen layer can be planned with the device's cooperative matrices.
fn matrices_can_be_planned(device: &WgpuDevice) -> Result<(), Failure> {
    let f16 = Element::F16;
    let options = LinearOptions { source: f16, weight: f16, target: f16, ..Default::default() };
    let profile = device.profile().clone();
    let config = Config { d_in: 64, d_out: 128, ..Config::default() };
    let way = LinearWay::Matrices { size: profile.matrices };
    let choice = LinearChoice { threads: 64, thread_tokens: 1, thread_quads: 1, splits: 1, way };
    let recording =
        Planner::new(profile).plan_as(Choice::Linear(choice), &Operation::Linear(options), &config, 64)?;
    let label = recording.steps[0].shader.source().label;
    if label == "linear_matrix" { Ok(()) } else { Err(Failure::Failed(format!("{label} was planned"))) }
}

/// Longer than any trial takes on a software driver.
const PATIENCE: Duration = Duration::from_mins(3);

/// Runs a trial on its own thread, so that a hang is a failure.
fn in_time(trial: impl FnOnce() -> Result<(), Failure> + Send + 'static) -> Result<(), Failure> {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = sender.send(catch_unwind(AssertUnwindSafe(trial)));
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(outcome)) => {
            let _ = thread.join();
            outcome
        }
        Ok(Err(panic)) => resume_unwind(panic),
        Err(_) => Err(Failure::Failed(format!("still running after {PATIENCE:?}"))),
    }
}

const CONFIG: Config =
    Config { d_in: 8, d_out: 8, rank: 2, experts: 2, scaling: 1.0, router: Router::Input, ..Config::DEFAULT };

fn ensure(condition: bool, otherwise: impl FnOnce() -> String) -> Result<(), Failure> {
    if condition { Ok(()) } else { Err(Failure::Failed(otherwise())) }
}

/// A new device on the adapter of the shared one.
fn own_gpu(device: &WgpuDevice) -> Result<Gpu, Failure> {
    Ok(pollster::block_on(Gpu::from_adapter(&device.adapter))?)
}

/// Counts the device's errors; without a handler, wgpu would panic.
fn count_errors(gpu: &Gpu) -> Arc<AtomicUsize> {
    let errors = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&errors);
    gpu.device.on_uncaptured_error(Arc::new(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    errors
}

/// The buffers of one forward.
struct Buffers {
    x: wgpu::Buffer,
    parameters: wgpu::Buffer,
    y: wgpu::Buffer,
}

impl Buffers {
    fn new(gpu: &Gpu, config: &Config) -> Result<Self, Error> {
        Ok(Self {
            x: gpu.zeroed("x", config.d_in as usize)?,
            parameters: gpu.zeroed("parameters", config.layout()?.len())?,
            y: gpu.zeroed("y", config.d_out as usize)?,
        })
    }

    fn forward(&self, kernels: &Kernels, config: Config) -> Result<Bound, Error> {
        let operation = Operation::Forward(ForwardOptions::default());
        let tensors = [("x", &self.x), ("parameters", &self.parameters), ("y", &self.y)];
        let tensors = tensors.map(|(name, buffer)| (name, Tensor::from(buffer)));
        kernels.prepare(&operation, &config, 1)?.bind(&tensors)
    }
}

/// A `backward_params` with exactly one plan.
fn backward_params(kernels: &Kernels, config: &Config, tokens: u32) -> Result<Prepared, Error> {
    let operation = Operation::BackwardParams(BackwardParamsOptions::default());
    kernels.prepare(&operation, config, Capacity { tokens, plans: Plans::One })
}

fn backward_params_tensors(buffers: [&wgpu::Buffer; 5]) -> Vec<(&'static str, Tensor<'_>)> {
    let names = ["x", "g", "saved", "dstate", "gradients"];
    names.into_iter().zip(buffers.map(Tensor::from)).collect()
}

/// A device with a bound forward.
struct Use {
    gpu: Gpu,
    kernels: Kernels,
    buffers: Buffers,
    forward: Bound,
    batch: Batch,
    stopwatch: Stopwatch,
}

impl Use {
    fn new(gpu: Gpu) -> Result<Self, Error> {
        let kernels = Kernels::new(&gpu.device, &gpu.queue);
        let buffers = Buffers::new(&gpu, &CONFIG)?;
        let forward = buffers.forward(&kernels, CONFIG)?;
        let batch = Batch::new(&kernels, 1)?;
        let stopwatch = Stopwatch::new(&gpu)?;
        Ok(Self { gpu, kernels, buffers, forward, batch, stopwatch })
    }

    fn prepare(&self, config: Config) -> Result<(), Error> {
        self.buffers.forward(&self.kernels, config).map(drop)
    }
}

/// A call that uses a device.
#[derive(Clone, Copy)]
struct Call {
    name: &'static str,
    /// Whether it needs memory for a buffer.
    creates: bool,
    /// Whether it calls the driver in a way that may lose the device.
    submits: bool,
    ask: fn(&Use) -> Result<(), Error>,
}

const CALLS: [Call; 14] = {
    const fn creating(name: &'static str, ask: fn(&Use) -> Result<(), Error>) -> Call {
        Call { name, creates: true, submits: false, ask }
    }
    const fn submitting(name: &'static str, ask: fn(&Use) -> Result<(), Error>) -> Call {
        Call { name, creates: false, submits: true, ask }
    }
    const fn both(name: &'static str, ask: fn(&Use) -> Result<(), Error>) -> Call {
        Call { name, creates: true, submits: true, ask }
    }
    [
        creating("zeroed", |used| used.gpu.zeroed("zeros", 4).map(drop)),
        creating("upload", |used| used.gpu.upload("numbers", &[1.0; 4]).map(drop)),
        creating("upload_as", |used| used.gpu.upload_as("halves", &[1.0; 3], Element::F16).map(drop)),
        creating("Batch::new", |used| Batch::new(&used.kernels, 1).map(drop)),
        creating("Kernels::prepare, not compiled", |used| {
            used.prepare(Config { router: Router::Latent, ..CONFIG })
        }),
        creating("Stopwatch::new", |used| Stopwatch::new(&used.gpu).map(drop)),
        submitting("wait", |used| used.gpu.wait()),
        submitting("submit", |used| used.gpu.submit(|pass| used.forward.encode(pass, &used.batch)).map(drop)),
        submitting("Stopwatch::time", |used| {
            used.stopwatch.time(|pass| used.forward.encode(pass, &used.batch)).map(drop)
        }),
        both("read", |used| pollster::block_on(used.gpu.read(&used.buffers.y)).map(drop)),
        both("read_blocking", |used| used.gpu.read_blocking(&used.buffers.y).map(drop)),
        both("read_as_blocking", |used| {
            used.gpu.read_as_blocking(&used.buffers.y, Element::F16, 3).map(drop)
        }),
        both("Tuner::measure", |used| {
            let [_, _, backward_params] = Operation::training_step(Element::F32);
            Tuner::new(&used.gpu.device).measure(&used.gpu, &CONFIG, 1, backward_params).map(drop)
        }),
        both("Tuner::measure_step", |used| {
            Tuner::new(&used.gpu.device).measure_step(&used.gpu, &CONFIG, 1).map(drop)
        }),
    ]
};

/// Makes every call twice on a lost device. Each call has its own device, which is lost while it works.
fn ask_lost(
    new: impl Fn() -> Result<Gpu, Failure>,
    lose: impl Fn(&Use, Call) -> Result<(), Failure>,
) -> Result<(), Failure> {
    for call in CALLS {
        let used = Use::new(new()?)?;
        used.gpu.submit(|pass| used.forward.encode(pass, &used.batch))?;
        lose(&used, call)?;
        for time in ["first", "second"] {
            let outcome = (call.ask)(&used);
            let told = matches!(&outcome, Err(Error::Device { message, .. }) if message.contains("lost"));
            ensure(told, || {
                format!("{} on a lost device gave {outcome:?} at the {time} attempt", call.name)
            })?;
        }
    }
    Ok(())
}

fn a_device_lost_in_mid_use(device: &WgpuDevice) -> Result<(), Failure> {
    let destroy = |used: &Use, _| {
        used.gpu.device.destroy();
        Ok(())
    };
    // With and without an error handler of the application's.
    ask_lost(|| own_gpu(device), destroy)?;
    let errors = RefCell::new(Vec::new());
    let handling = || {
        let gpu = own_gpu(device)?;
        errors.borrow_mut().push(count_errors(&gpu));
        Ok(gpu)
    };
    ask_lost(handling, destroy)?;
    let reached: usize = errors.take().iter().map(|errors| errors.load(Ordering::Relaxed)).sum();
    ensure(reached == 0, || format!("{reached} errors also reached the application's handler"))?;
    // The application's callback for lost devices is told of the loss.
    let gpu = own_gpu(device)?;
    let losses = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&losses);
    gpu.device.set_device_lost_callback(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let y = gpu.upload("y", &[1.0])?;
    gpu.device.destroy();
    let read = gpu.read_blocking(&y);
    ensure(matches!(read, Err(Error::Device { .. })), || {
        format!("reading from a lost device gave {read:?}")
    })?;
    gpu.device.poll(wgpu::PollType::Poll).map_err(|error| error.to_string())?;
    ensure(losses.load(Ordering::Relaxed) == 1, || "the application was not told of the loss".to_owned())
}

/// wgpu learns of this loss from its own calls to the driver.
fn a_device_lost_by_its_driver(device: &WgpuDevice) -> Result<(), Failure> {
    let lose = |used: &Use, call: Call| {
        set_driver(Driver::Lost);
        if call.submits {
            return Ok(());
        }
        let waited = used.gpu.wait();
        ensure(waited.is_err(), || "waiting for a lost device succeeded".to_owned())
    };
    ask_lost(|| breakable_gpu(&device.adapter), lose)
}

/// Every call that needs a buffer reports that there is no memory: the cause, and not its consequences.
fn a_driver_without_memory(device: &WgpuDevice) -> Result<(), Failure> {
    for call in CALLS.into_iter().filter(|call| call.creates) {
        let used = Use::new(breakable_gpu(&device.adapter)?)?;
        set_driver(Driver::OutOfMemory);
        let outcome = (call.ask)(&used);
        set_driver(Driver::Healthy);
        let told = |message: &str| message.to_lowercase().contains("memory");
        ensure(matches!(&outcome, Err(Error::Device { message, .. }) if told(message)), || {
            format!("{} without memory gave {outcome:?}", call.name)
        })?;
    }
    Ok(())
}

/// KiB of address space of the process in the out-of-memory trial: enough for a software driver and its
/// compiler.
const ADDRESS_SPACE: &str = "6291456";

/// Runs this executable again with little memory, which also limits a software driver's device memory.
fn out_of_memory(device: &WgpuDevice) -> Result<(), Failure> {
    let info = device.adapter.get_info();
    if !cfg!(unix) || info.device_type != wgpu::DeviceType::Cpu {
        let reason = "only a software driver's memory can be limited from outside, and only on Unix";
        return Err(Failure::Unsupported(reason.to_owned()));
    }
    let executable = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("sh")
        .args(["-c", "ulimit -v $0 && exec \"$1\" --exhaust-memory", ADDRESS_SPACE])
        .arg(executable)
        .env("WGPU_BACKEND", info.backend.to_str())
        .env("WGPU_ADAPTER_NAME", info.name)
        .output()
        .map_err(|error| error.to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure(output.status.success() && text.contains(EXHAUSTED), || {
        format!("the process ended with {}: {text}{}", output.status, String::from_utf8_lossy(&output.stderr))
    })
}

/// The output of the process without memory if all went well.
const EXHAUSTED: &str = "out of memory was an error, and nothing else happened";

/// The other half of the out-of-memory trial: uses up the device's memory, prepares an operation that
/// needs scratch memory, gives the memory back and prepares it again.
pub fn exhaust_memory() -> Result<(), String> {
    const LARGEST: u64 = 256 << 20;
    let gpu = pollster::block_on(Gpu::from_env()).map_err(|error| error.to_string())?;
    let kernels = Kernels::with_profile(
        &gpu.device,
        &gpu.queue,
        DeviceProfile { busy_workgroups: 4096, ..DeviceProfile::of(&gpu.device) },
    );
    // With split tokens, this operation needs about as much scratch memory as one binding can hold.
    let config = Config { d_in: 16384, d_out: 16384, rank: 8, experts: 4, ..CONFIG };
    let tokens = 1024;
    let prepared = backward_params(&kernels, &config, tokens).map_err(|error| error.to_string())?;
    let scratch = prepared.scratch_bytes();
    let state = (tokens * config.state_len()) as usize;
    let layout = config.layout().map_err(|error| error.to_string())?;
    let zeroed = |name, elements| gpu.zeroed(name, elements).map_err(|error: Error| error.to_string());
    let x = zeroed("x", (tokens * config.d_in) as usize)?;
    let g = zeroed("g", (tokens * config.d_out) as usize)?;
    let (saved, dstate) = (zeroed("saved", state)?, zeroed("dstate", state)?);
    let gradients = zeroed("gradients", layout.len())?;
    let tensors = backward_params_tensors([&x, &g, &saved, &dstate, &gradients]);
    let mut hoard = Vec::new();
    let mut size = LARGEST;
    // Stop when no block of half the scratch memory's size is left.
    while size > scratch / 2 {
        let guard = gpu.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = gpu.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("hoard"),
            size,
            usage: wgpu::BufferUsages::STORAGE,
            mapped_at_creation: false,
        });
        if pollster::block_on(guard.pop()).is_some() {
            size /= 2;
        } else if hoard.len() > 1000 {
            return Err("memory does not run out".to_owned());
        } else {
            hoard.push(buffer);
        }
    }
    match prepared.bind(&tensors) {
        Err(Error::Device { message, .. }) if message.to_lowercase().contains("memory") => {}
        other => return Err(format!("preparing without memory gave {other:?} ({scratch} bytes of scratch)")),
    }
    drop(hoard);
    gpu.wait().map_err(|error| error.to_string())?;
    prepared.bind(&tensors).map_err(|error| format!("with memory again: {error}"))?;
    println!("{EXHAUSTED}");
    Ok(())
}

fn a_refused_pipeline(device: &WgpuDevice) -> Result<(), Failure> {
    // This device allows shorter workgroups than forward's, a limit that plans do not look at.
    let limits = wgpu::Limits { max_compute_workgroup_size_x: 32, ..wgpu::Limits::downlevel_defaults() };
    let request = device.adapter.request_device(&wgpu::DeviceDescriptor {
        required_limits: limits.or_worse_values_from(&device.adapter.limits()),
        ..Default::default()
    });
    let (device, queue) = pollster::block_on(request).map_err(|error| Failure::Failed(error.to_string()))?;
    let gpu = Gpu { device, queue };
    let errors = count_errors(&gpu);
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    let buffers = Buffers::new(&gpu, &CONFIG)?;
    for attempt in ["first", "second", "awaited"] {
        let prepared = if attempt == "awaited" {
            let forward = Operation::Forward(ForwardOptions::default());
            pollster::block_on(kernels.prepare_async(&forward, &CONFIG, 1)).map(drop)
        } else {
            buffers.forward(&kernels, CONFIG).map(drop)
        };
        ensure(matches!(prepared, Err(Error::Device { .. })), || {
            format!("a pipeline beyond the device's limits gave {prepared:?} at the {attempt} attempt")
        })?;
    }
    ensure(kernels.compiled() == 0, || "a refused pipeline was kept".to_owned())?;
    ensure(errors.load(Ordering::Relaxed) == 0, || {
        "the error also reached the application's handler".to_owned()
    })?;
    // The device still works.
    let y = gpu.read_blocking(&buffers.y)?;
    ensure(y.iter().all(|&y| y == 0.0), || format!("y is {y:?}"))
}

thread_local! {
    /// Whether this thread's next compilation panics.
    static PANIC: Cell<bool> = const { Cell::new(false) };
}

/// Passes on the messages that `RUST_LOG` asks for, and panics in the middle of a compilation if a trial
/// wants it. The library writes its one log line there, while the pipeline's place in the cache is locked.
struct Logger(env_logger::Logger);

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        PANIC.get() || self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if PANIC.get() && record.target().starts_with("hydralora") {
            PANIC.set(false);
            // This panic runs no hook, so that a passing run prints no panic.
            resume_unwind(Box::new("this panic is part of a trial"));
        }
        let level = if is_search_of_mesa(record) { log::Level::Debug } else { record.level() };
        if self.0.enabled(&log::Metadata::builder().target(record.target()).level(level).build()) {
            self.0.log(record);
        }
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Whether this is a message of Mesa, with validation on, that one of its drivers does not load. Mesa then
/// tries the next one. If none loads, the adapter is missing.
fn is_search_of_mesa(record: &log::Record<'_>) -> bool {
    // Naga logs much, and long texts. Only this target's messages are worth being put together.
    record.target() == "wgpu_hal::gles::egl" && {
        let message = record.args().to_string();
        message.starts_with("EGL 'eglInitialize'") && message.ends_with("failed to load driver")
    }
}

pub fn install_logger() {
    let logger = env_logger::Logger::from_default_env();
    if log::set_boxed_logger(Box::new(Logger(logger))).is_ok() {
        log::set_max_level(log::LevelFilter::Debug);
    }
}

fn a_panic_while_compiling(device: &WgpuDevice) -> Result<(), Failure> {
    let gpu = own_gpu(device)?;
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    let buffers = Buffers::new(&gpu, &CONFIG)?;
    PANIC.set(true);
    let prepared = catch_unwind(AssertUnwindSafe(|| buffers.forward(&kernels, CONFIG).map(drop)));
    PANIC.set(false);
    ensure(prepared.is_err(), || format!("nothing was compiled: {prepared:?}"))?;
    ensure(kernels.compiled() == 0, || "a compilation that panicked was counted".to_owned())?;
    // The panic poisoned the lock. The cache itself is intact, and is used again.
    buffers.forward(&kernels, CONFIG)?;
    ensure(kernels.compiled() == 1, || format!("{} pipelines are compiled", kernels.compiled()))
}

/// Scratch memory from the caller gives the same bits as the library's own.
fn scratch_of_the_caller(device: &WgpuDevice) -> Result<(), Failure> {
    let gpu = own_gpu(device)?;
    let profile = DeviceProfile { busy_workgroups: 64, ..DeviceProfile::of(&gpu.device) };
    let kernels = Kernels::with_profile(&gpu.device, &gpu.queue, profile);
    let tokens = 200;
    let prepared = backward_params(&kernels, &CONFIG, tokens)?;
    let bytes = prepared.scratch_bytes();
    let batch = Batch::new(&kernels, tokens)?;
    ensure(bytes > 0, || "the plan has no splits".to_owned())?;
    let rng = &mut StdRng::seed_from_u64(1);
    let mut random = |name: &str, len: u32| gpu.upload(name, &noise(rng, len));
    let (x, g) = (random("x", tokens * CONFIG.d_in)?, random("g", tokens * CONFIG.d_out)?);
    let state = tokens * CONFIG.state_len();
    let (saved, dstate) = (random("saved", state)?, random("dstate", state)?);
    let layout = CONFIG.layout()?;
    let scratch = gpu.zeroed("scratch", (bytes / 4) as usize)?;
    let short = Tensor::new(&scratch, 0, bytes - 4);
    let run = |scratch: Option<Tensor<'_>>| -> Result<Vec<f32>, Failure> {
        let gradients = gpu.upload("gradients", &vec![f32::NAN; layout.len()])?;
        let mut tensors = backward_params_tensors([&x, &g, &saved, &dstate, &gradients]);
        tensors.extend(scratch.map(|scratch| ("scratch", scratch)));
        let backward = prepared.bind(&tensors)?;
        gpu.submit(|pass| backward.encode(pass, &batch))?;
        Ok(gpu.read_blocking(&gradients)?)
    };
    let (own, given) = (run(None)?, run(Some((&scratch).into()))?);
    ensure(own.iter().all(|value| value.is_finite()) && own == given, || {
        format!("{own:?} with the library's scratch memory, {given:?} with the caller's")
    })?;
    ensure(run(Some(short)).is_err(), || "scratch memory that is too short was accepted".to_owned())
}

/// wgpu's counts of the resources that could leak.
fn resources(instance: &wgpu::Instance) -> Option<[(&'static str, usize); 8]> {
    let hub = instance.generate_report()?.hub;
    Some(
        [
            ("buffers", hub.buffers),
            ("bind groups", hub.bind_groups),
            ("bind group layouts", hub.bind_group_layouts),
            ("pipeline layouts", hub.pipeline_layouts),
            ("shader modules", hub.shader_modules),
            ("compute pipelines", hub.compute_pipelines),
            ("command encoders", hub.command_encoders),
            ("command buffers", hub.command_buffers),
        ]
        .map(|(name, report)| (name, report.num_kept_from_user)),
    )
}

fn a_thousand_lives(device: &WgpuDevice) -> Result<(), Failure> {
    const LIVES: usize = 1000;
    let info = device.adapter.get_info();
    let instance = instance_from_env();
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let same = |adapter: &wgpu::Adapter| {
        let other = adapter.get_info();
        other.name == info.name && other.backend == info.backend
    };
    let adapter = adapters.into_iter().find(same);
    let adapter = adapter.ok_or_else(|| Failure::Failed("the adapter is gone".to_owned()))?;
    let gpu = pollster::block_on(Gpu::from_adapter(&adapter))?;
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    // Every operation: a step with split tokens, and an optimiser with clipping.
    let case = Case::new(CaseOperation::Step(Router::Input), Shape::new(130, [8, 8], [2, 2]))
        .planned_for(Planning::Wide);
    let job = case.job();
    let memory = Memory::new(&job, Placement::Separate);
    let buffers = memory.upload(&gpu)?;
    let tensor = |name: &str| memory.place(name).tensor(&buffers);
    let layout = case.shape.config(Router::Input).layout()?;
    let moments = gpu.zeroed("moments", 2 * layout.len())?;
    let parameters = gpu.zeroed("parameters", layout.len())?;
    let live = || -> Result<(), Failure> {
        let prepared = job
            .ops
            .iter()
            .map(|op| pollster::block_on(op.prepare(&gpu, &kernels, &tensor)))
            .collect::<Result<Vec<_>, _>>()?;
        let adamw = AdamW::prepare(
            &kernels,
            &AdamWDescriptor {
                buffers: &[AdamWBuffers {
                    elements: layout.len(),
                    parameters: (&parameters).into(),
                    gradients: tensor("gradients"),
                    moments: (&moments).into(),
                }],
                status: None,
                hyper: AdamWHyper { max_norm: Some(1.0), ..AdamWHyper::default() },
                ..Default::default()
            },
        )?;
        gpu.submit(|pass| {
            prepared.iter().try_for_each(|encode| encode(pass))?;
            adamw.encode(pass);
            Ok(())
        })?;
        Ok(gpu.wait()?)
    };
    live()?;
    let Some(before) = resources(&instance) else {
        return Err(Failure::Unsupported("this backend of wgpu keeps no resource counts".to_owned()));
    };
    ensure(before[0].1 > 0, || format!("wgpu counts no buffers: {before:?}"))?;
    let compiled = kernels.compiled();
    (0..LIVES).try_for_each(|_| live())?;
    let after = resources(&instance);
    ensure(after == Some(before), || format!("after {LIVES} lives {before:?} became {after:?}"))?;
    ensure(compiled == kernels.compiled(), || "pipelines were compiled again".to_owned())
}

fn many_threads(device: &WgpuDevice) -> Result<(), Failure> {
    const THREADS: u64 = 8;
    let cases = (0..THREADS).map(|thread| Case {
        seed: Some(thread),
        ..Case::new(CaseOperation::Step(Router::Latent), Shape::new(21, [36, 28], [4, 3]))
    });
    // All threads prepare at once on the same kernels, which have compiled nothing yet.
    let gpu = device.gpu.clone();
    let kernels = &Kernels::new(&gpu.device, &gpu.queue);
    let gpu = &gpu;
    let outcomes: Vec<Result<(), Failure>> = std::thread::scope(|scope| {
        let threads: Vec<_> = cases
            .map(|case| {
                scope.spawn(move || {
                    let job = case.job();
                    let memory = Memory::new(&job, case.placement);
                    let buffers = memory.upload(gpu)?;
                    let tensor = |name: &str| memory.place(name).tensor(&buffers);
                    for op in &job.ops {
                        let encode = pollster::block_on(op.prepare(gpu, kernels, &tensor))?;
                        gpu.submit(|pass| encode(pass))?;
                    }
                    let after = buffers
                        .iter()
                        .map(|buffer| pollster::block_on(words(gpu, buffer)))
                        .collect::<Result<Vec<_>, _>>()?;
                    modes::compare(&job, &memory.results(&job, &after)?)?;
                    Ok(())
                })
            })
            .collect();
        let panicked = || Err(Failure::Failed("a thread panicked".to_owned()));
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| panicked())).collect()
    });
    outcomes.into_iter().collect()
}
