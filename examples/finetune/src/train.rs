//! The training loop.

use std::f64::consts::LN_2;
use std::time::{Duration, Instant};

use hydralora::{AdamW, AdamWBuffers, AdamWDescriptor, AdamWHyper, AdamWStatus, Config, schedule, wgpu};

use crate::Result;
use crate::adapters::Adapters;
use crate::backward::Backward;
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

/// How to train.
pub struct Training {
    pub steps: u32,
    /// It determines everything random.
    pub seed: u64,
    /// The coefficient of the experts' balance in the loss.
    pub balance: f32,
}

/// A finished run.
pub struct Run {
    pub adapters: Adapters,
    /// Each step's training loss in bits per byte.
    pub curve: Vec<f64>,
    pub time: Duration,
}

/// Trains fresh adapters.
pub fn train(
    runtime: &Runtime,
    name: &str,
    config: Config,
    texts: &[Text],
    training: &Training,
) -> Result<Run> {
    let Training { steps, seed, balance } = *training;
    let gpu = &runtime.gpu;
    let adapters = Adapters::initialise(gpu, config, seed)?;
    let elements = adapters.elements();
    let moments = [gpu.zeroed("moments", 2 * elements)?, gpu.zeroed("moments", 2 * elements)?];
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
    let mut curve = Vec::new();
    let progress = Progress::new(name, steps, TOKENS);
    let started = Instant::now();
    for step in 1..=steps {
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
        let row = u64::from((step - 1) % LOOK_EVERY);
        encoder.copy_buffer_to_buffer(losses, 0, &history, row * losses.size(), losses.size());
        gpu.queue.submit([encoder.finish()]);

        if step % LOOK_EVERY == 0 || step == steps {
            let history = gpu.read_blocking(&history)?;
            let new = step as usize - curve.len();
            curve.extend(history.chunks_exact(TOKENS as usize).take(new).map(mean_bits));
            let recent = &curve[curve.len() - new..];
            let loss = recent.iter().sum::<f64>() / new as f64;
            if !loss.is_finite() {
                return Err(format!("{name}: the loss is {loss} after {step} steps").into());
            }
            progress.show(step, loss);
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
    Ok(Run { adapters, curve, time: started.elapsed() })
}

fn mean_bits(nats: &[f32]) -> f64 {
    nats.iter().copied().map(f64::from).sum::<f64>() / nats.len() as f64 / LN_2
}
