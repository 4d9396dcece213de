//! The library's operations at one shape, and the alternatives to them on the same inputs.

use std::rc::Rc;

use hydralora::device::Gpu;
use hydralora::stopwatch::Stopwatch;
use hydralora::{
    AdamW, AdamWDescriptor, AdamWHyper, Adapter, Config, Element, Error, Kernels, Layout, Router, Tensor,
    WriteMode, wgpu,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::chain::{self, LayerChain};
use crate::concatenated::{self, Concatenated, Form};
use crate::grid::Shape;
use crate::layer::{Layer, Tensors, Writes};
use crate::recorder::{Checks, Dispatches, Recorder};

/// Inputs that are used in turn have at least this many bytes together, so that caches do not answer...
const ROTATED_BYTES: u64 = 64 << 20;
/// ... unless that takes more sets than this.
const MOST_SETS: u64 = 16;

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

/// Inputs, of which there are several sets.
struct Set {
    x: wgpu::Buffer,
    g: wgpu::Buffer,
    parameters: wgpu::Buffer,
}

impl Set {
    fn inputs(&self) -> concatenated::Inputs<'_> {
        concatenated::Inputs { x: &self.x, g: &self.g, parameters: &self.parameters }
    }
}

/// The library's operations for every set of inputs.
pub struct Ours {
    pub config: Config,
    pub tokens: u32,
    pub layers: Vec<(Layer, AdamW)>,
    sets: Vec<Set>,
    y: wgpu::Buffer,
    dx: wgpu::Buffer,
    gradients: wgpu::Buffer,
    adapter: Adapter,
    pub layout: Layout,
}

pub fn config(shape: &Shape) -> Config {
    let Shape { d_in, d_out, rank, experts, .. } = *shape;
    Config { d_in, d_out, rank, experts, scaling: 2.0, router: Router::Input }
}

fn random(len: usize, rng: &mut StdRng) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

impl Ours {
    /// Activations are of type `element`, everything else is f32.
    pub fn new(gpu: &Gpu, kernels: &Kernels, shape: &Shape, element: Element) -> Result<Self, Error> {
        let (config, tokens) = (config(shape), shape.tokens);
        let rng = &mut StdRng::seed_from_u64(0);
        let layout = config.layout()?;
        let [d_in, d_out, rank] = [config.d_in, config.d_out, config.rank].map(|n| n as usize);
        let adapter = Adapter {
            b: (0..config.experts).map(|_| random(d_out * rank, rng)).collect(),
            ..Adapter::initialise(&config, 0)?
        };
        let [x_len, y_len] = [d_in, d_out].map(|width| tokens as usize * width);
        let packed = layout.pack(&adapter)?;
        let bytes = (x_len + y_len) as u64 * element.bytes() + layout.bytes();
        let sets: Vec<_> = (0..ROTATED_BYTES.div_ceil(bytes).clamp(1, MOST_SETS))
            .map(|_| Set {
                x: gpu.upload_as("x", &random(x_len, rng), element),
                g: gpu.upload_as("g", &random(y_len, rng), element),
                parameters: gpu.upload("parameters", &packed),
            })
            .collect();
        let halves = |len: usize| len * element.bytes() as usize / 4;
        let (y, dx) = (gpu.zeroed("y", halves(y_len)), gpu.zeroed("dx", halves(x_len)));
        let gradients = gpu.zeroed("gradients", layout.len());
        let moments = gpu.zeroed("moments", 2 * layout.len());
        let state = |label| gpu.zeroed(label, (tokens * config.state_len()) as usize);
        let (saved, dstate) = (state("saved"), state("dstate"));
        let layers = sets
            .iter()
            .map(|set| {
                let tensors = Tensors {
                    x: Tensor::from(&set.x).of(element),
                    g: Tensor::from(&set.g).of(element),
                    parameters: (&set.parameters).into(),
                    y: Tensor::from(&y).of(element),
                    dx: Tensor::from(&dx).of(element),
                    saved: (&saved).into(),
                    dstate: (&dstate).into(),
                    gradients: (&gradients).into(),
                };
                let layer =
                    Layer::prepare(kernels, config, tokens, &tensors, Writes::all(WriteMode::Overwrite))?;
                let descriptor = AdamWDescriptor {
                    elements: layout.len(),
                    parameters: (&set.parameters).into(),
                    gradients: (&gradients).into(),
                    moments: (&moments).into(),
                    status: None,
                    hyper: AdamWHyper::default(),
                };
                let adamw = AdamW::prepare(kernels, &descriptor)?;
                // Parameters stay what they are: every run computes the same.
                adamw.set_step(&gpu.queue, 1, 0.0)?;
                Ok((layer, adamw))
            })
            .collect::<Result<_, Error>>()?;
        Ok(Self { config, tokens, layers, sets, y, dx, gradients, adapter, layout })
    }

    pub fn sets(&self) -> u32 {
        self.sets.len() as u32
    }

    /// Records a task for every set.
    fn encode_task(&self, task: Task, pass: &mut wgpu::ComputePass<'_>) {
        for (layer, adamw) in &self.layers {
            match task {
                Task::Forward => layer.forward.encode(pass),
                Task::Backward => {
                    layer.backward_input.encode(pass);
                    layer.backward_params.encode(pass);
                }
                Task::Step => {
                    layer.encode(pass);
                    adamw.encode(pass);
                }
            }
        }
    }
}

/// A way to compute a task.
pub struct Entrant {
    pub name: &'static str,
    /// Dispatches for one set of inputs.
    pub dispatches: usize,
    /// Sets of inputs that a run goes through.
    sets: u32,
    encode: Box<dyn Fn(&mut wgpu::ComputePass<'_>)>,
}

impl Entrant {
    /// Seconds for one set of inputs.
    pub fn time(&self, stopwatch: &Stopwatch) -> Result<f64, Error> {
        Ok(stopwatch.time(|pass| (self.encode)(pass))?.as_secs_f64() / f64::from(self.sets))
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
    pub fn new(gpu: &Gpu, stopwatch: &Stopwatch, ours: Ours) -> Result<Self, Error> {
        let Ours { config, tokens, layout, sets, adapter, .. } = &ours;
        let first = &sets[0];
        let chain = LayerChain::new(gpu, config, *tokens, adapter, &first.x, &first.g);
        let elements = (layout.len() as u32).next_multiple_of(4096);
        let chain_adamw = chain::adamw(gpu, elements, &AdamWHyper::default(), 1e-3);
        let form = Form::new(gpu, *config, *tokens)?;
        let recorder = &mut Recorder::new(gpu, Checks::OURS);
        let tiles = form.tune(recorder, stopwatch, first.inputs());
        let concatenated: Vec<_> =
            sets.iter().map(|set| form.record(recorder, set.inputs(), &tiles)).collect();

        gpu.submit(|pass| {
            chain.forward.encode(pass);
            chain.backward.encode(pass);
            ours.layers[0].0.encode(pass);
            concatenated[0].forward.encode(pass);
            concatenated[0].backward.encode(pass);
        });
        let read = |buffer| gpu.read_blocking(buffer);
        let unpack = |gradients| layout.unpack(&read(gradients)?);
        let (packed, also_packed) = (unpack(&ours.gradients)?, unpack(&form.outputs().gradients)?);
        for (name, buffers) in
            [("y", [&chain.y, &ours.y, &form.outputs().y]), ("dx", [&chain.dx, &ours.dx, &form.outputs().dx])]
        {
            let [chain, ours, concatenated] = buffers.map(read);
            let chain = chain?;
            assert_agree(name, &chain, &ours?);
            assert_agree(name, &chain, &concatenated?);
        }
        for ((chain, ours), concatenated) in chain.db.iter().zip(&packed.b).zip(&also_packed.b) {
            let chain = read(chain)?;
            assert_agree("dB", &chain, ours);
            assert_agree("dB", &chain, concatenated);
        }
        assert_agree("dA", &also_packed.a, &packed.a);
        // A single expert's router has no gradient.
        if config.experts > 1 {
            assert_agree("dW_g", &also_packed.router, &packed.router);
        }
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
        let backward = layer.backward_input.dispatches() + layer.backward_params.dispatches();
        let ours = [layer.forward.dispatches(), backward, adamw.dispatches()];
        let chain = [&self.chain.forward, &self.chain.backward, &self.chain_adamw].map(Dispatches::len);
        let Concatenated { forward, backward } = &self.concatenated[0];
        let concatenated = [forward.len(), backward.len(), adamw.dispatches()];
        let entrant = |name, counts, sets, encode: fn(&Self, Task, &mut wgpu::ComputePass<'_>)| {
            let contest = Rc::clone(self);
            let encode = Box::new(move |pass: &mut wgpu::ComputePass<'_>| encode(&contest, task, pass));
            Entrant { name, dispatches: sum(counts), sets, encode }
        };
        let sets = self.ours.sets();
        [
            entrant("hydralora", ours, sets, |contest, task, pass| contest.ours.encode_task(task, pass)),
            entrant("chain", chain, 1, Self::encode_chain),
            entrant("concatenated", concatenated, sets, Self::encode_concatenated),
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

/// A comparison of two things that compute something else is worth nothing.
fn assert_agree(name: &str, one: &[f32], other: &[f32]) {
    let largest = one.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let apart = one.iter().zip(other).fold(0.0f32, |apart, (a, b)| apart.max((a - b).abs()));
    assert!(largest > 0.0 && apart < 1e-4 * largest, "{name}: the two differ by {apart} of {largest}");
}
