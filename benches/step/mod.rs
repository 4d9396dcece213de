//! A training step of all of a model's adapters as one encoder: forward, backward and AdamW; and what
//! it costs the CPU to record it.

#![allow(dead_code, reason = "a test and a bench use a part of it each")]

use std::time::{Duration, Instant};

use hydralora::device::Gpu;
use hydralora::{
    AdamW, AdamWBuffers, AdamWDescriptor, Batch, Bound, Capacity, Config, DeviceProfile, Element, Error,
    Kernels, Operation, Planner, Plans, Prepared, Recording, Router, Tensor, wgpu,
};

/// Recordings that are timed.
const ROUNDS: usize = 51;

/// Bytes at whose multiples every device lets a binding start.
const ALIGNMENT: u64 = 256;

/// A model as its adapters see it: each layer has one on each of three projections.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    pub layers: usize,
    /// `d_in` and `d_out`.
    pub projections: [[u32; 2]; 3],
    pub tokens: u32,
}

/// LLaMA-2-7B. How many the tokens are does not change what the CPU does, unless they are split.
pub const LLAMA_2_7B: Model =
    Model { layers: 32, projections: [[4096, 4096], [4096, 11008], [11008, 4096]], tokens: 16 };

/// An adapter, and where it lies in its pack's buffers.
struct Place {
    config: Config,
    offset: u64,
    bytes: u64,
}

impl Model {
    /// The adapters in the order of the forward pass.
    pub fn adapters(&self) -> impl Iterator<Item = Config> {
        let layer = self.projections.map(|[d_in, d_out]| Config {
            d_in,
            d_out,
            rank: 8,
            experts: 4,
            scaling: 2.0,
            router: Router::Input,
        });
        std::iter::repeat_n(layer, self.layers).flatten()
    }

    /// Adapters that share buffers, and an AdamW: as many as the device lets one binding hold both
    /// moments of.
    fn packs(&self, device: &DeviceProfile) -> Result<Vec<Vec<Place>>, Error> {
        let most = device.limits.max_storage_buffer_binding_size.min(device.limits.max_buffer_size) / 2;
        let mut packs = vec![Vec::new()];
        let mut end = 0u64;
        for config in self.adapters() {
            let bytes = config.layout()?.bytes();
            let mut offset = end.next_multiple_of(ALIGNMENT);
            if offset > 0 && offset + bytes > most {
                packs.push(Vec::new());
                offset = 0;
            }
            end = offset + bytes;
            packs.last_mut().expect("never empty").push(Place { config, offset, bytes });
        }
        Ok(packs)
    }

    /// The operations of a step, in the order that [`Step::encode`] records them.
    pub fn recordings(&self, planner: &Planner) -> Result<Vec<Recording>, Error> {
        let packs = self.packs(&planner.profile)?;
        let [forward, backward @ ..] = Operation::training_step(Element::F32);
        let mut recordings = Vec::new();
        for Place { config, .. } in packs.iter().flatten() {
            recordings.push(planner.plan(&forward, config, self.tokens)?);
        }
        for Place { config, .. } in packs.iter().flatten().rev() {
            for operation in &backward {
                recordings.push(planner.plan(operation, config, self.tokens)?);
            }
        }
        let elements: Vec<_> = packs.iter().map(|pack| elements(pack) as u64).collect();
        recordings.extend(planner.adamw(&elements, false)?);
        Ok(recordings)
    }
}

/// Elements of a pack's parameters.
fn elements(pack: &[Place]) -> usize {
    pack.last().map_or(0, |place| (place.offset + place.bytes) as usize / 4)
}

/// A step that is ready to be recorded. The adapters share their activations, which no model's do; recording
/// hardly notices.
pub struct Step {
    /// The operations of each.
    adapters: Vec<[Bound; 3]>,
    pub packs: Vec<Pack>,
    adamw: AdamW,
    batch: Batch,
}

/// Buffers of several adapters.
pub struct Pack {
    pub parameters: wgpu::Buffer,
    gradients: wgpu::Buffer,
    moments: wgpu::Buffer,
}

impl Pack {
    fn new(gpu: &Gpu, places: &[Place]) -> Result<Self, Error> {
        let elements = elements(places);
        Ok(Self {
            parameters: gpu.zeroed("parameters", elements)?,
            gradients: gpu.zeroed("gradients", elements)?,
            moments: gpu.zeroed("moments", 2 * elements)?,
        })
    }

    fn buffers(&self) -> AdamWBuffers<'_> {
        let Self { parameters, gradients, moments } = self;
        let elements = parameters.size() as usize / 4;
        let (parameters, gradients, moments) = (parameters.into(), gradients.into(), moments.into());
        AdamWBuffers { elements, parameters, gradients, moments }
    }
}

impl Step {
    pub fn bind(gpu: &Gpu, model: &Model) -> Result<Self, Error> {
        let kernels = &Kernels::new(&gpu.device, &gpu.queue);
        let tokens = model.tokens;
        let widest = model.projections.into_iter().flatten().max().unwrap_or_default();
        let activation = |label, value| gpu.upload(label, &vec![value; (tokens * widest) as usize]);
        let [x, g] = [activation("x", 0.5)?, activation("g", 0.1)?];
        let [y, dx] = [activation("y", 0.0)?, activation("dx", 0.0)?];
        let zeroed = |label, bytes: u64| gpu.zeroed(label, bytes as usize / 4);
        let state_bytes = model.adapters().map(|config| config.state_bytes(tokens)).max().unwrap_or_default();
        let state_stride = state_bytes.next_multiple_of(ALIGNMENT);
        let saved = zeroed("saved", state_stride * model.adapters().count() as u64)?;
        let dstate = zeroed("dstate", state_bytes)?;

        let prepare = |config| -> Result<[Prepared; 3], Error> {
            let capacity = Capacity { tokens, plans: Plans::One };
            let prepare = |operation| kernels.prepare(&operation, &config, capacity);
            let [forward, backward_input, backward_params] = Operation::training_step(Element::F32);
            Ok([prepare(forward)?, prepare(backward_input)?, prepare(backward_params)?])
        };
        let prepared = model.adapters().map(prepare).collect::<Result<Vec<_>, _>>()?;
        let scratch_bytes = prepared.iter().flatten().map(Prepared::scratch_bytes).max();
        let scratch = zeroed("scratch", scratch_bytes.unwrap_or_default().max(4))?;

        let packs = model.packs(kernels.profile())?;
        let places =
            packs.iter().enumerate().flat_map(|(pack, places)| places.iter().map(move |place| (pack, place)));
        let packs = packs.iter().map(|places| Pack::new(gpu, places)).collect::<Result<Vec<_>, _>>()?;
        let mut adapters = Vec::new();
        for ((pack, &Place { offset, bytes, .. }), prepared) in places.zip(&prepared) {
            let Pack { parameters, gradients, .. } = &packs[pack];
            let saved = ("saved", Tensor::new(&saved, state_stride * adapters.len() as u64, state_bytes));
            let parameters = ("parameters", Tensor::new(parameters, offset, bytes));
            let gradients = ("gradients", Tensor::new(gradients, offset, bytes));
            let (x, g, y, dx) =
                (("x", (&x).into()), ("g", (&g).into()), ("y", (&y).into()), ("dx", (&dx).into()));
            let (dstate, scratch) = (("dstate", (&dstate).into()), ("scratch", (&scratch).into()));
            let [forward, backward_input, backward_params] = prepared;
            adapters.push([
                forward.bind(&[x, parameters, y, saved, scratch])?,
                backward_input.bind(&[g, parameters, saved, dstate, dx, scratch])?,
                backward_params.bind(&[x, g, saved, dstate, gradients, scratch])?,
            ]);
        }
        let buffers: Vec<_> = packs.iter().map(Pack::buffers).collect();
        let adamw = AdamWDescriptor { buffers: &buffers, ..AdamWDescriptor::default() };
        let adamw = AdamW::prepare(kernels, &adamw)?;
        Ok(Self { adapters, packs, adamw, batch: Batch::new(kernels, tokens)? })
    }

    /// Dispatches that [`Step::encode`] records.
    fn dispatches(&self) -> usize {
        let adapters = self.adapters.iter().flatten().map(|bound| bound.dispatches(self.batch.tokens()));
        adapters.sum::<usize>() + self.adamw.dispatches()
    }

    /// To be called before each step is submitted.
    pub fn set(&self, queue: &wgpu::Queue, step: u32, learning_rate: f32) -> Result<(), Error> {
        self.adamw.set_step(queue, step, learning_rate)
    }

    /// Records all forwards, then from the last adapter to the first their backwards, then AdamW.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<(), Error> {
        for [forward, ..] in &self.adapters {
            forward.encode(pass, &self.batch)?;
        }
        for [_, backward @ ..] in self.adapters.iter().rev() {
            for bound in backward {
                bound.encode(pass, &self.batch)?;
            }
        }
        self.adamw.encode(pass);
        Ok(())
    }
}

/// What a step costs the CPU before it is submitted.
#[derive(Debug, Clone, Copy)]
pub struct StepCost {
    pub adapters: usize,
    pub dispatches: usize,
    /// Setting AdamW's step, making the encoder, and recording.
    pub record: Duration,
    /// `CommandEncoder::finish`, where wgpu validates and talks to the driver.
    pub finish: Duration,
}

/// Records steps of LLaMA-2-7B, one right after the other, and tells what the median one cost.
pub fn record_cost(gpu: &Gpu) -> Result<StepCost, Error> {
    let step = Step::bind(gpu, &LLAMA_2_7B)?;
    let (adapters, dispatches) = (step.adapters.len(), step.dispatches());
    // Buffers that nobody has written to cost more to record: wgpu has to zero them.
    gpu.submit(|pass| step.encode(pass))?;
    gpu.wait()?;
    let mut costs: Vec<StepCost> = (1..=ROUNDS)
        .map(|number| {
            let begin = Instant::now();
            step.set(&gpu.queue, number as u32, 0.0)?;
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            step.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()))?;
            let record = begin.elapsed();
            let begin = Instant::now();
            let commands = encoder.finish();
            let finish = begin.elapsed();
            drop(commands);
            // The writes of `set` wait for a submission.
            gpu.queue.submit([]);
            Ok(StepCost { adapters, dispatches, record, finish })
        })
        .collect::<Result<_, Error>>()?;
    costs.sort_by_key(|cost| cost.record + cost.finish);
    Ok(costs[ROUNDS / 2])
}
