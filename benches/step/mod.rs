//! A training step of all of a model's adapters as one encoder: forward, backward and AdamW; and what
//! it costs the CPU to record it.

#![allow(dead_code, reason = "a test and a bench use a part of it each")]

use std::time::{Duration, Instant};

use hydralora::device::Gpu;
use hydralora::op::{
    AdamWPlan, BackwardInputOptions, BackwardInputPlan, BackwardParamsOptions, BackwardParamsPlan,
    ForwardOptions, ForwardPlan,
};
use hydralora::{
    AdamW, AdamWDescriptor, AdamWHyper, BackwardInput, BackwardInputDescriptor, BackwardParams,
    BackwardParamsDescriptor, Config, DeviceProfile, DispatchPlan, Element, Error, Forward,
    ForwardDescriptor, Kernels, Operation, Router, Tensor, WriteMode, wgpu,
};

/// Recordings that are timed.
const ROUNDS: usize = 51;

/// Bytes at whose multiples every device lets a binding start.
const ALIGNMENT: u64 = 256;

/// The step of each adapter.
fn operations() -> (ForwardOptions, BackwardInputOptions, BackwardParamsOptions) {
    let [
        Operation::Forward(forward),
        Operation::BackwardInput(backward_input),
        Operation::BackwardParams(backward_params),
    ] = Operation::training_step(Element::F32)
    else {
        unreachable!("these are the operations, in this order")
    };
    (forward, backward_input, backward_params)
}

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

    /// The dispatches of a step, in the order that [`Step::encode`] records them.
    pub fn plans(&self, device: &DeviceProfile) -> Result<Vec<DispatchPlan>, Error> {
        let packs = self.packs(device)?;
        let (forward, backward_input, backward_params) = operations();
        let mut plans = Vec::new();
        for Place { config, .. } in packs.iter().flatten() {
            plans.extend(ForwardPlan::new(config, self.tokens, &forward, device)?.dispatches);
        }
        for Place { config, .. } in packs.iter().flatten().rev() {
            plans.extend(BackwardInputPlan::new(config, self.tokens, &backward_input, device)?.dispatches);
            plans.extend(BackwardParamsPlan::new(config, self.tokens, &backward_params, device)?.dispatches);
        }
        for pack in &packs {
            plans.extend(AdamWPlan::new(elements(pack), AdamWHyper::default(), device)?.dispatches);
        }
        Ok(plans)
    }

    /// Bytes of scratch memory that suffice for each adapter in turn.
    fn scratch_bytes(&self, device: &DeviceProfile) -> Result<u64, Error> {
        let (_, _, options) = operations();
        let plan = |config| BackwardParamsPlan::new(&config, self.tokens, &options, device);
        self.adapters().try_fold(4, |most, config| Ok(plan(config)?.scratch_bytes.max(most)))
    }
}

/// Elements of a pack's parameters.
fn elements(pack: &[Place]) -> usize {
    pack.last().map_or(0, |place| (place.offset + place.bytes) as usize / 4)
}

/// A prepared step. The adapters share their activations, which no model's do; recording hardly notices.
pub struct Step {
    adapters: Vec<(Forward, BackwardInput, BackwardParams)>,
    pub packs: Vec<Pack>,
}

/// Buffers of several adapters, and what updates them.
pub struct Pack {
    pub parameters: wgpu::Buffer,
    pub gradients: wgpu::Buffer,
    adamw: AdamW,
}

impl Step {
    pub fn prepare(gpu: &Gpu, model: &Model) -> Result<Self, Error> {
        let kernels = &Kernels::new(&gpu.device);
        let tokens = model.tokens;
        let places = model.packs(kernels.profile())?;
        let widest = model.projections.into_iter().flatten().max().unwrap_or_default();
        let activation = |label, value| gpu.upload(label, &vec![value; (tokens * widest) as usize]);
        let [x, g] = [activation("x", 0.5)?, activation("g", 0.1)?];
        let [y, dx] = [activation("y", 0.0)?, activation("dx", 0.0)?];
        let zeroed = |label, bytes: u64| gpu.zeroed(label, bytes as usize / 4);
        let state_bytes = model.adapters().map(|config| config.state_bytes(tokens)).max().unwrap_or_default();
        let state_stride = state_bytes.next_multiple_of(ALIGNMENT);
        let saved = zeroed("saved", state_stride * model.adapters().count() as u64)?;
        let dstate = zeroed("dstate", state_bytes)?;
        let scratch = zeroed("scratch", model.scratch_bytes(kernels.profile())?)?;

        let (mut adapters, mut packs) = (Vec::new(), Vec::new());
        for pack in &places {
            let elements = elements(pack);
            let parameters = gpu.zeroed("parameters", elements)?;
            let gradients = gpu.zeroed("gradients", elements)?;
            let moments = gpu.zeroed("moments", 2 * elements)?;
            for &Place { config, offset, bytes } in pack {
                let saved = Tensor::new(&saved, state_stride * adapters.len() as u64, state_bytes);
                let (x, g, dstate) = ((&x).into(), (&g).into(), (&dstate).into());
                let forward = ForwardDescriptor {
                    config,
                    tokens,
                    x,
                    parameters: Tensor::new(&parameters, offset, bytes),
                    y: (&y).into(),
                    write: WriteMode::Accumulate,
                    saved: Some(saved),
                };
                let backward_input = BackwardInputDescriptor {
                    config,
                    tokens,
                    g,
                    parameters: Tensor::new(&parameters, offset, bytes),
                    saved,
                    dx: Some((&dx).into()),
                    write: WriteMode::Accumulate,
                    dstate,
                };
                let backward_params = BackwardParamsDescriptor {
                    config,
                    tokens,
                    x,
                    g,
                    saved,
                    dstate,
                    gradients: Tensor::new(&gradients, offset, bytes),
                    write: WriteMode::Overwrite,
                    scratch: Some((&scratch).into()),
                };
                adapters.push((
                    Forward::prepare(kernels, &forward)?,
                    BackwardInput::prepare(kernels, &backward_input)?,
                    BackwardParams::prepare(kernels, &backward_params)?,
                ));
            }
            let adamw = AdamWDescriptor {
                elements,
                parameters: (&parameters).into(),
                gradients: (&gradients).into(),
                moments: (&moments).into(),
                status: None,
                hyper: AdamWHyper::default(),
            };
            let adamw = AdamW::prepare(kernels, &adamw)?;
            packs.push(Pack { parameters, gradients, adamw });
        }
        Ok(Self { adapters, packs })
    }

    /// To be called before each step is submitted.
    pub fn set(&self, queue: &wgpu::Queue, step: u32, learning_rate: f32) -> Result<(), Error> {
        self.packs.iter().try_for_each(|pack| pack.adamw.set_step(queue, step, learning_rate))
    }

    /// Records all forwards, then from the last adapter to the first their backwards, then AdamW.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        for (forward, ..) in &self.adapters {
            forward.encode(pass);
        }
        for (_, backward_input, backward_params) in self.adapters.iter().rev() {
            backward_input.encode(pass);
            backward_params.encode(pass);
        }
        for pack in &self.packs {
            pack.adamw.encode(pass);
        }
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
    let step = Step::prepare(gpu, &LLAMA_2_7B)?;
    let dispatches = LLAMA_2_7B.plans(&DeviceProfile::of(&gpu.device))?.len();
    // Buffers that nobody has written to cost more to record: wgpu has to zero them.
    gpu.submit(|pass| step.encode(pass))?;
    gpu.wait()?;
    let mut costs: Vec<StepCost> = (1..=ROUNDS)
        .map(|number| {
            let begin = Instant::now();
            step.set(&gpu.queue, number as u32, 0.0)?;
            let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            step.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
            let record = begin.elapsed();
            let begin = Instant::now();
            let commands = encoder.finish();
            let finish = begin.elapsed();
            drop(commands);
            // The writes of `set` wait for a submission.
            gpu.queue.submit([]);
            Ok(StepCost { adapters: step.adapters.len(), dispatches, record, finish })
        })
        .collect::<Result<_, Error>>()?;
    costs.sort_by_key(|cost| cost.record + cost.finish);
    Ok(costs[ROUNDS / 2])
}
