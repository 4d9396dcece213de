//! The library's operations at one shape, and the alternatives to them on the same inputs.

use std::rc::Rc;

use hydralora::device::Gpu;
use hydralora::stopwatch::Stopwatch;
use hydralora::{
    AdamW, AdamWBuffers, AdamWDescriptor, AdamWHyper, Adapter, Batch, Config, DeviceProfile, Element, Error,
    Kernels, Layout, Recording, Router, Tensor, WriteMode, wgpu,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::alternatives::chain::{self, LayerChain};
use crate::alternatives::concatenated::{self, Concatenated, Form, Outputs};
use crate::grid::Shape;
use crate::layer::{self, Layer, Tensors};
use crate::recorder::{Checks, Dispatches, Recorder};

/// What a forward touches has at least this many bytes together in all sets, so that caches do not answer: on
/// GPUs more than any of them holds, and less on software devices, which take long enough...
const ROTATED_BYTES: u64 = 256 << 20;
const ROTATED_BYTES_IN_SOFTWARE: u64 = 64 << 20;
/// ... unless that takes more sets than this.
const MOST_SETS: u64 = 64;
const MOST_SETS_IN_SOFTWARE: u64 = 16;

/// The number of sets of inputs that are used in turn, if each has this many bytes.
pub(crate) fn sets_of(bytes: u64, kernels: &Kernels) -> u64 {
    let (rotated, most_sets) = if kernels.profile().software {
        (ROTATED_BYTES_IN_SOFTWARE, MOST_SETS_IN_SOFTWARE)
    } else {
        (ROTATED_BYTES, MOST_SETS)
    };
    rotated.div_ceil(bytes).clamp(1, most_sets)
}

/// Elements of two results are this part of the largest apart at most.
const TOLERANCE: f32 = 1e-4;

/// Why nothing is measured at a shape.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The library refuses, or the device fails.
    #[error(transparent)]
    Library(#[from] Error),
    /// An alternative is out of the device's reach.
    #[error("{what} needs {needed}, and this device has {allowed}: measure a smaller shape")]
    OverLimit { what: &'static str, needed: u64, allowed: u64 },
    /// A comparison of two things that compute something else is worth nothing.
    #[error("{name}: {one} and {other} differ by {apart} where the largest element is {largest}")]
    Disagree { name: &'static str, one: &'static str, other: &'static str, apart: f32, largest: f32 },
}

impl Failure {
    fn check_limit(what: &'static str, needed: u64, allowed: u64) -> Result<(), Self> {
        if needed <= allowed { Ok(()) } else { Err(Self::OverLimit { what, needed, allowed }) }
    }

    /// Whether the shape is no shape, or too much for the device: nothing is wrong.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Library(error) => !matches!(error, Error::Device { .. }),
            Self::OverLimit { .. } => true,
            Self::Disagree { .. } => false,
        }
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    Forward,
    Backward,
    /// Forward, backward and AdamW.
    Step,
}

impl Task {
    pub const ALL: [Self; 3] = [Self::Forward, Self::Backward, Self::Step];

    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
            Self::Step => "step",
        }
    }
}

/// How the library's operations are measured.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Elements of the activations; everything else is f32.
    pub element: Element,
    /// Whether results are overwritten or added to.
    pub write: WriteMode,
    /// Whether each set of inputs has a y and dx of its own. The gradients and what is saved are the same for
    /// all sets, so that dispatches of different sets run one after the other.
    pub own_outputs: bool,
}

impl Setting {
    /// As the alternatives are measured.
    pub const CONTEST: Self = Self { element: Element::F32, write: WriteMode::Overwrite, own_outputs: false };
}

/// AdamW as most train with it.
fn clipping() -> AdamWHyper {
    AdamWHyper { max_norm: Some(1.0), ..AdamWHyper::default() }
}

/// Tensors of which there are several sets. y and dx may be the same in all.
struct Set {
    x: wgpu::Buffer,
    g: wgpu::Buffer,
    parameters: wgpu::Buffer,
    y: wgpu::Buffer,
    dx: wgpu::Buffer,
}

impl Set {
    fn inputs(&self) -> concatenated::Inputs<'_> {
        concatenated::Inputs { x: &self.x, g: &self.g, parameters: &self.parameters }
    }
}

/// The library's operations for every set of inputs.
pub struct Ours {
    pub config: Config,
    pub batch: Batch,
    pub layers: Vec<(Layer, AdamW)>,
    /// AdamW with clipping, for every set too: the alternatives have none.
    pub clipping: Vec<AdamW>,
    pub setting: Setting,
    sets: Vec<Set>,
    gradients: wgpu::Buffer,
    adapter: Adapter,
    pub layout: Layout,
}

pub fn config(shape: &Shape) -> Config {
    let Shape { d_in, d_out, rank, experts, .. } = *shape;
    Config { d_in, d_out, rank, experts, scaling: 2.0, router: Router::Input, ..Default::default() }
}

/// Refuses a tensor that no binding holds, before the host fills it.
pub(crate) fn check_room(gpu: &Gpu, what: &'static str, bytes: u64) -> Result<(), Failure> {
    let limits = gpu.device.limits();
    let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
    Failure::check_limit(what, bytes, most)
}

fn random(len: usize, rng: &mut StdRng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

impl Ours {
    /// Compiles what [`Ours::new`] takes, for browsers, where that may not wait.
    pub async fn warm(kernels: &Kernels, shape: &Shape, setting: Setting) -> Result<(), Error> {
        let (config, capacity) = (config(shape), layer::capacity(shape.tokens));
        for operation in layer::operations(setting.element, setting.write) {
            kernels.prepare_async(&operation, &config, capacity).await?;
        }
        for hyper in [AdamWHyper::default(), clipping()] {
            let adamw = kernels.planner().adamw(&[config.layout()?.len() as u64], &hyper)?;
            kernels.warm_async(adamw.iter().flat_map(Recording::shaders)).await?;
        }
        Ok(())
    }

    pub fn new(gpu: &Gpu, kernels: &Kernels, shape: &Shape, setting: Setting) -> Result<Self, Failure> {
        let Setting { element, write, own_outputs } = setting;
        let (config, tokens) = (config(shape), shape.tokens);
        let rng = &mut StdRng::seed_from_u64(0);
        let layout = config.layout()?;
        let widest = u64::from(config.d_in.max(config.d_out));
        let activation = (u64::from(tokens) * element.bytes()).saturating_mul(widest);
        check_room(gpu, "the wider activation (bytes of a buffer)", activation)?;
        check_room(gpu, "the saved state (bytes of a buffer)", config.state_bytes(tokens))?;
        check_room(gpu, "AdamW's moments (bytes of a buffer)", 2 * layout.bytes())?;
        let [d_in, d_out, rank] = [config.d_in, config.d_out, config.rank].map(|n| n as usize);
        let adapter = Adapter {
            b: (0..config.experts).map(|_| random(d_out * rank, rng)).collect(),
            ..Adapter::initialise(&config, 0)?
        };
        let [x_len, y_len] = [d_in, d_out].map(|width| tokens as usize * width);
        let packed = layout.pack(&adapter)?;
        let bytes = (x_len + y_len) as u64 * element.bytes() + layout.bytes();
        let outputs = || Ok((gpu.zeroed_as("y", y_len, element)?, gpu.zeroed_as("dx", x_len, element)?));
        let shared = outputs()?;
        let sets: Vec<_> = (0..sets_of(bytes, kernels))
            .map(|_| {
                let (y, dx) = if own_outputs { outputs()? } else { shared.clone() };
                Ok(Set {
                    x: gpu.upload_as("x", &random(x_len, rng), element)?,
                    g: gpu.upload_as("g", &random(y_len, rng), element)?,
                    parameters: gpu.upload("parameters", &packed)?,
                    y,
                    dx,
                })
            })
            .collect::<Result<_, Error>>()?;
        let gradients = gpu.zeroed("gradients", layout.len())?;
        let moments = gpu.zeroed("moments", 2 * layout.len())?;
        let state = |label| gpu.zeroed(label, config.state_bytes(tokens) as usize / 4);
        let (saved, dstate) = (state("saved")?, state("dstate")?);
        let status = gpu.zeroed("status", 2)?;
        let adamw = |parameters: &wgpu::Buffer, hyper: AdamWHyper| {
            let buffers = AdamWBuffers {
                elements: layout.len(),
                parameters: parameters.into(),
                gradients: (&gradients).into(),
                moments: (&moments).into(),
            };
            let status = hyper.max_norm.is_some().then_some((&status).into());
            let descriptor =
                AdamWDescriptor { buffers: &[buffers], hyper, status, ..AdamWDescriptor::default() };
            let adamw = AdamW::prepare(kernels, &descriptor)?;
            // Parameters stay what they are: every run computes the same.
            adamw.set_step(&gpu.queue, 1, 0.0)?;
            Ok::<_, Error>(adamw)
        };
        let layers = sets
            .iter()
            .map(|set| {
                let tensors = Tensors {
                    x: Tensor::from(&set.x).of(element),
                    g: Tensor::from(&set.g).of(element),
                    parameters: (&set.parameters).into(),
                    y: Tensor::from(&set.y).of(element),
                    dx: Tensor::from(&set.dx).of(element),
                    saved: (&saved).into(),
                    dstate: (&dstate).into(),
                    gradients: (&gradients).into(),
                };
                let layer = Layer::bind(kernels, &config, tokens, write, &tensors)?;
                Ok((layer, adamw(&set.parameters, AdamWHyper::default())?))
            })
            .collect::<Result<_, Error>>()?;
        let clipping =
            sets.iter().map(|set| adamw(&set.parameters, clipping())).collect::<Result<_, Error>>()?;
        let batch = Batch::new(kernels, tokens)?;
        Ok(Self { config, batch, layers, clipping, setting, sets, gradients, adapter, layout })
    }

    /// Frees the largest tensors at once, which a browser does when it pleases.
    pub fn destroy(&self) {
        for Set { x, g, parameters, y, dx } in &self.sets {
            [x, g, parameters, y, dx].into_iter().for_each(wgpu::Buffer::destroy);
        }
    }

    pub fn sets(&self) -> u32 {
        self.sets.len() as u32
    }

    /// Records a task for every set.
    fn encode_task(&self, task: Task, pass: &mut wgpu::ComputePass<'_>) -> Result<(), Error> {
        let batch = &self.batch;
        for (layer, adamw) in &self.layers {
            match task {
                Task::Forward => layer.forward.encode(pass, batch)?,
                Task::Backward => {
                    layer.backward_input.encode(pass, batch)?;
                    layer.backward_params.encode(pass, batch)?;
                }
                Task::Step => {
                    layer.encode(pass, batch)?;
                    adamw.encode(pass);
                }
            }
        }
        Ok(())
    }
}

type Encode = dyn Fn(&mut wgpu::ComputePass<'_>) -> Result<(), Error>;

/// A way to compute a task.
pub struct Entrant {
    pub name: &'static str,
    /// Dispatches for one set of inputs.
    pub dispatches: usize,
    /// Sets of inputs that a run goes through.
    sets: u32,
    encode: Box<Encode>,
}

impl Entrant {
    /// Seconds for one set of inputs.
    pub fn time(&self, stopwatch: &Stopwatch) -> Result<f64, Error> {
        Ok(stopwatch.time(|pass| self.encode(pass))?.as_secs_f64() / f64::from(self.sets))
    }

    /// A run with each set of inputs.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<(), Error> {
        (self.encode)(pass)
    }
}

/// The library and its alternatives at one shape in f32.
pub struct Contest {
    ours: Ours,
    chain: LayerChain,
    chain_adamw: Dispatches,
    concatenated: Vec<Concatenated>,
}

impl Contest {
    /// Prepares everything, and sees that all compute the same.
    pub fn new(gpu: &Gpu, stopwatch: &Stopwatch, ours: Ours) -> Result<Self, Failure> {
        let Ours { config, batch, layout, sets, adapter, .. } = &ours;
        let (first, tokens) = (&sets[0], batch.tokens());
        let loops = LayerChain::loop_iterations(config, tokens);
        let most_loops = DeviceProfile::of(&gpu.device).max_loop_iterations;
        Failure::check_limit("a thread of the chain (loop iterations)", loops, most_loops)?;
        let expanded = 4 * u64::from(tokens) * layout.expand().rows() as u64;
        check_room(gpu, "the concatenated form's coefficients (bytes of a buffer)", expanded)?;
        let chain = LayerChain::new(gpu, config, layout, tokens, adapter, &first.x, &first.g)?;
        let elements = (layout.len() as u32).next_multiple_of(4096);
        let chain_adamw = chain::adamw(gpu, elements, &AdamWHyper::default(), 1e-3)?;
        let form = Form::new(gpu, *config, tokens)?;
        let recorder = &mut Recorder::new(gpu, Checks::OURS);
        let tiles = form.tune(recorder, stopwatch, first.inputs())?;
        let concatenated: Vec<_> =
            sets.iter().map(|set| form.record(recorder, set.inputs(), &tiles)).collect();

        gpu.submit(|pass| {
            chain.forward.encode(pass);
            chain.backward.encode(pass);
            concatenated[0].forward.encode(pass);
            concatenated[0].backward.encode(pass);
            ours.layers[0].0.encode(pass, batch)
        })?;
        let results = [
            Results::of_chain(gpu, &chain)?,
            Results::of_packed(gpu, layout, &first.y, &first.dx, &ours.gradients)?,
            {
                let Outputs { y, dx, gradients, .. } = form.outputs();
                Results::of_packed(gpu, layout, y, dx, gradients)?
            },
        ];
        check_agree(&results, config)?;
        Ok(Self { ours, chain, chain_adamw, concatenated })
    }

    /// The ways to compute a task: the library's first.
    pub fn entrants(self: &Rc<Self>, task: Task) -> [Entrant; 3] {
        let sum = |counts: [usize; 3]| match task {
            Task::Forward => counts[0],
            Task::Backward => counts[1],
            Task::Step => counts.iter().sum(),
        };
        let (layer, adamw) = &self.ours.layers[0];
        let [forward, backward_input, backward_params] =
            [&layer.forward, &layer.backward_input, &layer.backward_params]
                .map(|bound| bound.dispatches(self.ours.batch.tokens()));
        let ours = [forward, backward_input + backward_params, adamw.dispatches()];
        let chain = [&self.chain.forward, &self.chain.backward, &self.chain_adamw].map(Dispatches::count);
        let Concatenated { forward, backward } = &self.concatenated[0];
        let concatenated = [forward.count(), backward.count(), adamw.dispatches()];
        let entrant = |name, counts, sets, encode: fn(&Self, Task, &mut wgpu::ComputePass<'_>) -> _| {
            let contest = Rc::clone(self);
            let encode = Box::new(move |pass: &mut wgpu::ComputePass<'_>| encode(&contest, task, pass));
            Entrant { name, dispatches: sum(counts), sets, encode }
        };
        let sets = self.ours.sets();
        [
            entrant("hydralora", ours, sets, |contest, task, pass| contest.ours.encode_task(task, pass)),
            entrant("chain", chain, 1, |contest, task, pass| {
                contest.encode_chain(task, pass);
                Ok(())
            }),
            entrant("concatenated", concatenated, sets, |contest, task, pass| {
                contest.encode_concatenated(task, pass);
                Ok(())
            }),
        ]
    }

    fn encode_chain(&self, task: Task, pass: &mut wgpu::ComputePass<'_>) {
        match task {
            Task::Forward => self.chain.forward.encode(pass),
            Task::Backward => self.chain.backward.encode(pass),
            Task::Step => {
                self.chain.forward.encode(pass);
                self.chain.backward.encode(pass);
                self.chain_adamw.encode(pass);
            }
        }
    }

    fn encode_concatenated(&self, task: Task, pass: &mut wgpu::ComputePass<'_>) {
        for (form, (_, adamw)) in self.concatenated.iter().zip(&self.ours.layers) {
            match task {
                Task::Forward => form.forward.encode(pass),
                Task::Backward => form.backward.encode(pass),
                Task::Step => {
                    form.forward.encode(pass);
                    form.backward.encode(pass);
                    adamw.encode(pass);
                }
            }
        }
    }
}

/// What a way computes.
struct Results {
    y: Vec<f32>,
    dx: Vec<f32>,
    gradients: Adapter,
}

impl Results {
    fn of_chain(gpu: &Gpu, chain: &LayerChain) -> Result<Self, Error> {
        let read = |buffer| gpu.read_blocking(buffer);
        let gradients = Adapter {
            a: read(&chain.da)?,
            router: chain.drouter.as_ref().map(read).transpose()?.unwrap_or_default(),
            router_bias: Vec::new(),
            b: chain.db.iter().map(read).collect::<Result<_, _>>()?,
        };
        Ok(Self { y: read(&chain.y)?, dx: read(&chain.dx)?, gradients })
    }

    fn of_packed(
        gpu: &Gpu,
        layout: &Layout,
        y: &wgpu::Buffer,
        dx: &wgpu::Buffer,
        gradients: &wgpu::Buffer,
    ) -> Result<Self, Error> {
        let gradients = layout.unpack(&gpu.read_blocking(gradients)?)?;
        Ok(Self { y: gpu.read_blocking(y)?, dx: gpu.read_blocking(dx)?, gradients })
    }

    fn tensors(&self) -> impl Iterator<Item = (&'static str, &[f32])> {
        let Self { y, dx, gradients: Adapter { a, router, b, .. } } = self;
        let named = [("y", y), ("dx", dx), ("dA", a), ("dW_g", router)];
        named.into_iter().chain(b.iter().map(|b| ("dB", b))).map(|(name, values)| (name, &values[..]))
    }
}

/// Refuses results of the chain, the library and the concatenated form that are not the same.
fn check_agree([chain, ours, concatenated]: &[Results; 3], config: &Config) -> Result<(), Failure> {
    for (other, others) in [("hydralora", ours), ("concatenated", concatenated)] {
        let (one, count) = ("chain", chain.tensors().count());
        assert_eq!(count, others.tensors().count(), "the ways have the same tensors");
        for ((name, expected), (_, values)) in chain.tensors().zip(others.tensors()) {
            // A single expert's router has no gradient, if there is a router.
            if config.experts == 1 && name == "dW_g" {
                continue;
            }
            let (largest, apart) = apart(expected, values);
            // What is not a number differs.
            if !(largest > 0.0 && apart < TOLERANCE * largest) {
                return Err(Failure::Disagree { name, one, other, apart, largest });
            }
        }
    }
    Ok(())
}

/// The largest of the expected elements, and how far the two are apart at most: infinitely if they are not
/// equally many. NaN is the largest of all.
fn apart(expected: &[f32], values: &[f32]) -> (f32, f32) {
    let most = |values: &mut dyn Iterator<Item = f32>| {
        values.map(f32::abs).max_by(f32::total_cmp).unwrap_or_default()
    };
    let largest = most(&mut expected.iter().copied());
    if expected.len() != values.len() {
        return (largest, f32::INFINITY);
    }
    (largest, most(&mut expected.iter().zip(values).map(|(a, b)| a - b)))
}
