//! Training, a step at a time.

use std::f64::consts::LN_2;

use hydralora::checkpoint::ModuleState;
use hydralora::{
    AdamW, AdamWBuffers, AdamWDescriptor, AdamWHyper, AdamWStatus, Adapter, Config, schedule, wgpu,
};

use crate::Result;
use crate::adapters::Adapters;
use crate::backward::Backward;
use crate::corpus::{Sampler, Text};
use crate::model::Model;
use crate::runtime::Runtime;

/// The number of predictions in a step.
pub const TOKENS: u32 = 256;
/// The most steps between looks at the loss. Each look waits for the device.
pub const LOOK_EVERY: u32 = 10;
const PEAK_LEARNING_RATE: f32 = 3e-3;
const WARM_UP_STEPS: u32 = 20;

/// How to train.
#[derive(Debug, Clone, Copy)]
pub struct Training {
    pub steps: u32,
    /// It determines everything random.
    pub seed: u64,
    /// The coefficient of the experts' balance in the loss.
    pub balance: f32,
}

/// What training goes on from.
pub struct State {
    /// The number of steps taken.
    pub step: u32,
    pub modules: [ModuleState; 2],
}

/// A run of training.
pub struct Trainer<'a> {
    runtime: &'a Runtime,
    training: Training,
    pub adapters: Adapters,
    moments: [wgpu::Buffer; 2],
    model: Model,
    backward: Backward,
    optimiser: AdamW,
    /// AdamW's report.
    status: wgpu::Buffer,
    sampler: Sampler<'a>,
    /// The losses of all steps since the last look.
    history: wgpu::Buffer,
    /// The number of steps taken.
    step: u32,
    looked: u32,
    /// Each step's training loss in bits per byte, as far as it was looked at.
    pub curve: Vec<f64>,
}

impl<'a> Trainer<'a> {
    /// Fresh adapters.
    pub async fn new(
        runtime: &'a Runtime,
        config: Config,
        texts: &'a [Text],
        training: Training,
    ) -> Result<Self> {
        let gpu = &runtime.gpu;
        let adapters = Adapters::initialise(gpu, config, training.seed)?;
        let elements = adapters.elements();
        let moments = [gpu.zeroed("moments", 2 * elements)?, gpu.zeroed("moments", 2 * elements)?];
        let status = gpu.zeroed("status", 2)?;
        let model = Model::prepare(runtime, Some(&adapters), TOKENS, true).await?;
        let backward = Backward::prepare(runtime, &model, &adapters, training.balance).await?;
        let buffers = [0, 1].map(|layer| AdamWBuffers {
            elements,
            parameters: (&adapters.parameters[layer]).into(),
            gradients: (&backward.gradients[layer]).into(),
            moments: (&moments[layer]).into(),
        });
        let descriptor = AdamWDescriptor {
            buffers: &buffers,
            status: Some((&status).into()),
            hyper: AdamWHyper { weight_decay: 0.0, max_norm: Some(1.0), ..AdamWHyper::default() },
            ..Default::default()
        };
        let optimiser = AdamW::prepare_async(&runtime.kernels, &descriptor).await?;
        let history = gpu.zeroed("loss history", (LOOK_EVERY * TOKENS) as usize)?;
        let sampler = Sampler::new(texts, training.seed);
        Ok(Self {
            runtime,
            training,
            adapters,
            moments,
            model,
            backward,
            optimiser,
            status,
            sampler,
            history,
            step: 0,
            looked: 0,
            curve: Vec::new(),
        })
    }

    /// Goes on from a state, which has to be that of a run with the same options. To be called before the first step.
    pub fn resume(&mut self, state: &State) -> Result<()> {
        let queue = &self.runtime.gpu.queue;
        let pack = |adapter: &Adapter| self.adapters.layout().pack(adapter);
        for (layer, state) in state.modules.iter().enumerate() {
            let both = [pack(&state.first_moments)?, pack(&state.second_moments)?].concat();
            let parameters = pack(&state.parameters)?;
            queue.write_buffer(&self.adapters.parameters[layer], 0, bytemuck::cast_slice(&parameters));
            queue.write_buffer(&self.moments[layer], 0, bytemuck::cast_slice(&both));
        }
        for _ in 0..state.step {
            self.sampler.draw(TOKENS as usize);
        }
        (self.step, self.looked) = (state.step, state.step);
        Ok(())
    }

    /// The number of steps taken.
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Submits the next step. Does not wait; after [`LOOK_EVERY`] steps comes a look.
    pub fn advance(&mut self) -> Result<()> {
        let Self { runtime, model, backward, optimiser, history, .. } = self;
        let gpu = &runtime.gpu;
        let Training { steps, seed, .. } = self.training;
        let step = self.step + 1;
        model.load(&gpu.queue, &self.sampler.draw(TOKENS as usize))?;
        model.batch.set_random(&gpu.queue, seed, step);
        let learning_rate = PEAK_LEARNING_RATE * schedule::cosine(step, WARM_UP_STEPS.min(steps), steps);
        optimiser.set_step(&gpu.queue, step, learning_rate)?;
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
            model.encode(&mut pass)?;
            backward.encode(&mut pass, &model.batch)?;
            optimiser.encode(&mut pass);
        }
        let losses = &model.activations.losses;
        let row = u64::from((step - self.looked - 1) % LOOK_EVERY);
        encoder.copy_buffer_to_buffer(losses, 0, history, row * losses.size(), losses.size());
        gpu.queue.submit([encoder.finish()]);
        self.step = step;
        Ok(())
    }

    /// Adds the losses since the last look to the curve, and returns their mean.
    pub async fn look(&mut self) -> Result<f64> {
        let new = (self.step - self.looked).min(LOOK_EVERY) as usize;
        let history = self.runtime.gpu.read(&self.history).await?;
        self.curve.extend(history.chunks_exact(TOKENS as usize).take(new).map(mean_bits));
        self.looked = self.step;
        let recent = &self.curve[self.curve.len() - new..];
        let loss = recent.iter().sum::<f64>() / new as f64;
        if loss.is_finite() {
            Ok(loss)
        } else {
            Err(format!("the loss is {loss} after {} steps", self.step).into())
        }
    }

    /// The state that [`Trainer::resume`] goes on from.
    pub async fn state(&self) -> Result<State> {
        let gpu = &self.runtime.gpu;
        let elements = self.adapters.elements();
        let part = async |layer: usize, first: usize| -> Result<Adapter> {
            let part = gpu.read_part(&self.moments[layer], first..first + elements).await?;
            Ok(self.adapters.layout().unpack(&part)?)
        };
        let module = async |layer: usize, parameters: Adapter| -> Result<ModuleState> {
            let (first_moments, second_moments) = (part(layer, 0).await?, part(layer, elements).await?);
            Ok(ModuleState { parameters, first_moments, second_moments })
        };
        let [fc1, fc2] = self.adapters.download(gpu).await?;
        Ok(State { step: self.step, modules: [module(0, fc1).await?, module(1, fc2).await?] })
    }

    /// Whether all steps were taken: one whose gradients are not finite is skipped.
    pub async fn check(&self) -> Result<()> {
        let status: AdamWStatus = bytemuck::cast_slice(&self.runtime.gpu.read(&self.status).await?)[0];
        if status.skipped == 0 {
            return Ok(());
        }
        Err(format!("{} steps were skipped, because their gradients were not finite", status.skipped).into())
    }
}

fn mean_bits(nats: &[f32]) -> f64 {
    nats.iter().copied().map(f64::from).sum::<f64>() / nats.len() as f64 / LN_2
}
