//! The training loop.

use std::f64::consts::LN_2;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use hydralora::checkpoint::{self, ModuleState};
use hydralora::device::Gpu;
use hydralora::{AdamW, AdamWBuffers, AdamWDescriptor, AdamWHyper, AdamWStatus, Config, schedule, wgpu};

use crate::Result;
use crate::adapters::Adapters;
use crate::backward::Backward;
use crate::base::ADAPTED;
use crate::corpus::{Sampler, Text};
use crate::model::Model;
use crate::progress::Progress;
use crate::runtime::Runtime;

/// The number of predictions in a step.
pub const TOKENS: u32 = 256;
/// The number of steps between looks at the loss. Each look waits for the device.
const LOOK_EVERY: u32 = 10;
const PEAK_LEARNING_RATE: f32 = 3e-3;
const WARM_UP_STEPS: u32 = 20;

/// The number of steps between saves, where there is a folder to save into.
const SAVE_EVERY: u32 = 50;

/// How to train.
pub struct Training {
    pub steps: u32,
    /// The last step to take, if not all.
    pub until: u32,
    /// Where to save the adapters and the state of training.
    pub save: Option<PathBuf>,
    /// Where the state is that training goes on from.
    pub resume: Option<PathBuf>,
    /// It determines everything random.
    pub seed: u64,
    /// The coefficient of the experts' balance in the loss.
    pub balance: f32,
}

/// A finished run.
pub struct Run {
    pub adapters: Adapters,
    /// The first step that was taken.
    pub first: u32,
    /// Each step's training loss in bits per byte.
    pub curve: Vec<f64>,
    pub time: Duration,
}

/// Trains fresh adapters, or goes on with those that were saved.
pub fn train(
    runtime: &Runtime,
    name: &str,
    config: Config,
    texts: &[Text],
    training: &Training,
) -> Result<Run> {
    let Training { steps, until, seed, balance, ref save, ref resume } = *training;
    let gpu = &runtime.gpu;
    let adapters = Adapters::initialise(gpu, config, seed)?;
    let elements = adapters.elements();
    let moments = [gpu.zeroed("moments", 2 * elements)?, gpu.zeroed("moments", 2 * elements)?];
    let first =
        1 + resume.as_ref().map(|folder| load(gpu, &adapters, &moments, folder)).transpose()?.unwrap_or(0);
    if first > until {
        return Err(format!("{name}: {} of {until} steps were taken already", first - 1).into());
    }
    let status = gpu.zeroed("status", 2)?;
    let mut model = Model::prepare(runtime, Some(&adapters), TOKENS, true)?;
    let backward = Backward::prepare(runtime, &model, &adapters, balance)?;
    let buffers = [0, 1].map(|layer| AdamWBuffers {
        elements,
        parameters: (&adapters.parameters[layer]).into(),
        gradients: (&backward.gradients[layer]).into(),
        moments: (&moments[layer]).into(),
    });
    let optimiser = AdamW::prepare(
        &runtime.kernels,
        &AdamWDescriptor {
            buffers: &buffers,
            status: Some((&status).into()),
            hyper: AdamWHyper { weight_decay: 0.0, max_norm: Some(1.0), ..AdamWHyper::default() },
            ..Default::default()
        },
    )?;
    // The losses of all steps since the last look.
    let history = gpu.zeroed("loss history", (LOOK_EVERY * TOKENS) as usize)?;

    let mut sampler = Sampler::new(texts, seed);
    for _ in 1..first {
        sampler.draw(TOKENS as usize);
    }
    let mut curve = Vec::new();
    let progress = Progress::new(name, steps, TOKENS);
    let started = Instant::now();
    for step in first..=until {
        model.load(&gpu.queue, &sampler.draw(TOKENS as usize))?;
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
        let row = u64::from((step - first) % LOOK_EVERY);
        encoder.copy_buffer_to_buffer(losses, 0, &history, row * losses.size(), losses.size());
        gpu.queue.submit([encoder.finish()]);

        let taken = step - first + 1;
        if taken % LOOK_EVERY == 0 || step == until {
            let history = gpu.read_blocking(&history)?;
            let new = taken as usize - curve.len();
            curve.extend(history.chunks_exact(TOKENS as usize).take(new).map(mean_bits));
            let recent = &curve[curve.len() - new..];
            let loss = recent.iter().sum::<f64>() / new as f64;
            if !loss.is_finite() {
                return Err(format!("{name}: the loss is {loss} after {step} steps").into());
            }
            progress.show(step, loss);
        }
        if let Some(folder) = save.as_ref().filter(|_| step % SAVE_EVERY == 0 || step == until) {
            adapters.save(gpu, folder)?;
            save_training(gpu, &adapters, &moments, step, folder)?;
        }
    }
    progress.finish();
    let status: AdamWStatus = bytemuck::cast_slice(&gpu.read_blocking(&status)?)[0];
    if status.skipped > 0 {
        return Err(format!(
            "{name}: {} steps were skipped, because their gradients were not finite",
            status.skipped
        )
        .into());
    }
    Ok(Run { adapters, first, curve, time: started.elapsed() })
}

/// Saves the state of training after a step.
fn save_training(
    gpu: &Gpu,
    adapters: &Adapters,
    moments: &[wgpu::Buffer; 2],
    step: u32,
    folder: &Path,
) -> Result<()> {
    let parameters = adapters.download(gpu)?;
    let elements = adapters.elements();
    let part = |layer: usize, first: usize| {
        adapters.layout().unpack(&gpu.read_part_blocking(&moments[layer], first..first + elements)?)
    };
    let state = |name: &str| {
        let layer = usize::from(name != ADAPTED[0]);
        let parameters = parameters[layer].clone();
        let (first_moments, second_moments) = (part(layer, 0)?, part(layer, elements)?);
        Ok(ModuleState { parameters, first_moments, second_moments })
    };
    Ok(checkpoint::save_training(folder, &adapters.modules(), step, state)?)
}

/// Loads the state of training, and returns the number of steps taken.
fn load(gpu: &Gpu, adapters: &Adapters, moments: &[wgpu::Buffer; 2], folder: &Path) -> Result<u32> {
    let saved = checkpoint::Training::open(folder)?;
    for (layer, (name, config)) in adapters.modules().iter().enumerate() {
        let state = saved.module(name, config)?;
        let pack = |adapter| adapters.layout().pack(adapter);
        let both = [pack(&state.first_moments)?, pack(&state.second_moments)?].concat();
        let parameters = pack(&state.parameters)?;
        gpu.queue.write_buffer(&adapters.parameters[layer], 0, bytemuck::cast_slice(&parameters));
        gpu.queue.write_buffer(&moments[layer], 0, bytemuck::cast_slice(&both));
    }
    Ok(saved.step())
}

fn mean_bits(nats: &[f32]) -> f64 {
    nats.iter().copied().map(f64::from).sum::<f64>() / nats.len() as f64 / LN_2
}
