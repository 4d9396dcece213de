//! A training step of all of a model's adapters as one encoder: forward, backward and AdamW; and what
//! it costs the CPU to record it.

use std::time::{Duration, Instant};

use hydralora::device::Gpu;
use hydralora::{
    AdamW, Batch, Bound, Capacity, Config, Element, Error, Kernels, Operation, Pack, Planner, Plans,
    Recording, Router, Stack, StackDescriptor, Tensor, wgpu,
};

/// Recordings that are timed.
const ROUNDS: usize = 51;

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
            ..Default::default()
        });
        std::iter::repeat_n(layer, self.layers).flatten()
    }

    /// The adapters with names.
    fn modules(&self) -> Vec<(String, Config)> {
        self.adapters().enumerate().map(|(at, config)| (format!("adapter {at}"), config)).collect()
    }

    /// The operations of a step, in the order that [`Step::encode`] records them.
    pub fn recordings(&self, planner: &Planner) -> Result<Vec<Recording>, Error> {
        let modules = self.modules();
        let modules = || modules.iter().map(|(name, config)| (name.as_str(), *config));
        let [forward, backward @ ..] = Operation::training_step(Element::F32);
        let mut recordings = Vec::new();
        for (_, config) in modules() {
            recordings.push(planner.plan(&forward, &config, self.tokens)?);
        }
        for (_, config) in modules().rev() {
            for operation in &backward {
                recordings.push(planner.plan(operation, &config, self.tokens)?);
            }
        }
        let pack = Pack::new(modules(), &planner.profile.limits)?;
        let elements: Vec<_> = pack.buffers().iter().map(|&elements| elements as u64).collect();
        recordings.extend(planner.adamw(&elements, false)?);
        Ok(recordings)
    }
}

/// A step that is ready to be recorded. The adapters share their activations, which no model's do; recording
/// hardly notices.
pub struct Step {
    /// The operations of each.
    adapters: Vec<[Bound; 3]>,
    pub stack: Stack,
    batch: Batch,
}

impl Step {
    pub fn bind(gpu: &Gpu, model: &Model) -> Result<Self, Error> {
        let kernels = &Kernels::new(&gpu.device, &gpu.queue);
        let tokens = model.tokens;
        let widest = model.projections.into_iter().flatten().max().unwrap_or_default();
        let activation = |label, value| gpu.upload(label, &vec![value; (tokens * widest) as usize]);
        let [x, g] = [activation("x", 0.5)?, activation("g", 0.1)?];
        let [y, dx] = [activation("y", 0.0)?, activation("dx", 0.0)?];
        let operations = Operation::training_step(Element::F32);
        let modules = model.modules();
        let modules: Vec<_> = modules.iter().map(|(name, config)| (name.as_str(), *config)).collect();
        let stack = Stack::new(
            kernels,
            &StackDescriptor {
                modules: &modules,
                capacity: Capacity { tokens, plans: Plans::One },
                operations: &operations,
                ..StackDescriptor::default()
            },
        )?;
        let tensors = [("x", &x), ("g", &g), ("y", &y), ("dx", &dx)];
        let activations = |wanted: &[&str]| -> Vec<(&'static str, Tensor<'_>)> {
            let tensors = tensors.iter().filter(|(name, _)| wanted.contains(name));
            tensors.map(|&(name, buffer)| (name, Tensor::from(buffer))).collect()
        };
        let [forward, backward_input, backward_params] = &operations;
        let bind = |&(module, _): &(&str, Config)| {
            Ok([
                stack.bind(module, forward, &activations(&["x", "y"]))?,
                stack.bind(module, backward_input, &activations(&["g", "dx"]))?,
                stack.bind(module, backward_params, &activations(&["x", "g"]))?,
            ])
        };
        let adapters = modules.iter().map(bind).collect::<Result<_, Error>>()?;
        Ok(Self { adapters, batch: stack.batch()?, stack })
    }

    fn adamw(&self) -> &AdamW {
        self.stack.optimiser().expect("the step trains")
    }

    /// Dispatches that [`Step::encode`] records.
    fn dispatches(&self) -> usize {
        let adapters = self.adapters.iter().flatten().map(|bound| bound.dispatches(self.batch.tokens()));
        adapters.sum::<usize>() + self.adamw().dispatches()
    }

    /// To be called before each step is submitted.
    pub fn set(&self, queue: &wgpu::Queue, step: u32, learning_rate: f32) -> Result<(), Error> {
        self.adamw().set_step(queue, step, learning_rate)
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
        self.adamw().encode(pass);
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
