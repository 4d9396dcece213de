//! A training step of all of a model's adapters in one encoder: forward, backward and AdamW. Also measures
//! what recording it costs the CPU.

use std::time::{Duration, Instant};

use hydralora::device::Gpu;
use hydralora::{
    AdamW, AdamWHyper, Batch, Bound, Capacity, Config, Element, Error, Kernels, Operation, Pack, Planner,
    Plans, Recording, Router, Stack, StackDescriptor, Tensor, wgpu,
};

/// The number of recordings to time.
const ROUNDS: usize = 51;

/// The adapters of a model: each layer has one on each of three projections.
#[derive(Debug, Clone, Copy)]
pub struct Model {
    pub layers: usize,
    /// `d_in` and `d_out`.
    pub projections: [[u32; 2]; 3],
    pub tokens: u32,
}

/// LLaMA-2-7B. The number of tokens does not change the work of the CPU, unless tokens are split.
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

    /// The adapters, with names.
    fn modules(&self) -> Vec<(String, Config)> {
        self.adapters().enumerate().map(|(at, config)| (format!("adapter {at}"), config)).collect()
    }

    /// The operations of a step, in the order in which [`Step::encode`] records them.
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
        recordings.extend(planner.adamw(&elements, &AdamWHyper::default())?);
        Ok(recordings)
    }
}

/// A step that is ready to be recorded. Unlike in a real model, the adapters share their activations; this
/// hardly changes the cost of recording.
pub struct Step {
    /// The operations of each adapter.
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

    /// The number of dispatches that [`Step::encode`] records.
    fn dispatches(&self) -> usize {
        let adapters = self.adapters.iter().flatten().map(|bound| bound.dispatches(self.batch.tokens()));
        adapters.sum::<usize>() + self.adamw().dispatches()
    }

    /// Sets the optimiser's step. Call it before each step is submitted.
    pub fn set(&self, queue: &wgpu::Queue, step: u32, learning_rate: f32) -> Result<(), Error> {
        self.adamw().set_step(queue, step, learning_rate)
    }

    /// Records all forwards, then the backwards from the last adapter to the first, then AdamW.
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

/// The CPU's costs of a step before it is submitted.
#[derive(Debug, Clone, Copy)]
pub struct StepCost {
    pub adapters: usize,
    pub dispatches: usize,
    /// Setting AdamW's step, creating the encoder, and recording.
    pub record: Duration,
    /// `CommandEncoder::finish`, where wgpu validates and talks to the driver.
    pub finish: Duration,
}

/// Records steps of LLaMA-2-7B, one right after the other, and returns the median costs.
pub fn record_cost(gpu: &Gpu) -> Result<StepCost, Error> {
    let step = Step::bind(gpu, &LLAMA_2_7B)?;
    let (adapters, dispatches) = (step.adapters.len(), step.dispatches());
    // Recording costs more with buffers that were never written, because wgpu has to zero them.
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
            // The writes of `set` are pending until a submission.
            gpu.queue.submit([]);
            Ok(StepCost { adapters, dispatches, record, finish })
        })
        .collect::<Result<_, Error>>()?;
    costs.sort_by_key(|cost| cost.record + cost.finish);
    Ok(costs[ROUNDS / 2])
}
