//! Training the adapters, and how well a model predicts.

use std::f64::consts::LN_2;

use hydralora::device::Gpu;
use hydralora::schedule;

use crate::adapters::Adapters;
use crate::error::Error;
use crate::model::Model;
use crate::text::{Sampler, Text, WINDOW};
use crate::tokenizer::Tokenizer;

const PEAK_LEARNING_RATE: f32 = 1e-3;
const WARM_UP_STEPS: u32 = 6;

/// Takes a step of training, of `steps`, and returns the mean loss before it in nats.
pub async fn step(
    gpu: &Gpu,
    model: &mut Model,
    adapters: &Adapters,
    sampler: &mut Sampler<'_>,
    [step, steps]: [u32; 2],
    seed: u64,
) -> Result<f64, Error> {
    let [inputs, targets] = sampler.draw();
    let rate = PEAK_LEARNING_RATE * schedule::cosine(step, WARM_UP_STEPS.min(steps), steps);
    let optimiser = adapters.stack.optimiser().ok_or(hydralora::Error::NoOptimiser)?;
    optimiser.set_step(&gpu.queue, step, rate)?;
    model.batch().set_random(&gpu.queue, seed, step);
    model.train(gpu, [&inputs, &targets], sampler.window(), Some(optimiser))?;
    Ok(mean(&gpu.read_part(model.loss_buffer(), 0..inputs.len()).await?))
}

pub fn mean(losses: &[f32]) -> f64 {
    losses.iter().copied().map(f64::from).sum::<f64>() / losses.len() as f64
}

/// Held-out bits per byte of every text.
pub async fn evaluate(
    gpu: &Gpu,
    model: &mut Model,
    texts: &[Text],
    tokenizer: &Tokenizer,
    windows: usize,
) -> Result<Vec<f64>, Error> {
    let capacity = model.how.capacity;
    if capacity < WINDOW {
        return Err(Error::Capacity { tokens: WINDOW.into(), capacity });
    }
    let most = (capacity / WINDOW * WINDOW) as usize;
    let mut scores = Vec::new();
    for text in texts {
        let [inputs, targets] = text.held_out(windows);
        let mut nats = 0.0;
        for (inputs, targets) in inputs.chunks(most).zip(targets.chunks(most)) {
            let losses = model.losses(gpu, [inputs, targets], WINDOW).await?;
            nats += losses.iter().copied().map(f64::from).sum::<f64>();
        }
        let bytes = tokenizer.decode(targets)?.len();
        scores.push(nats / LN_2 / bytes as f64);
    }
    Ok(scores)
}
