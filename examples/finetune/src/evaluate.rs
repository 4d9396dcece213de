//! Held-out bits per byte, and where the router sends each text.

use std::f64::consts::LN_2;

use hydralora::device::Gpu;
use hydralora::{Merge, MergeDescriptor, MergeError};

use crate::Result;
use crate::adapters::Adapters;
use crate::base::ADAPTED;
use crate::corpus::{Text, WINDOW};
use crate::model::Model;
use crate::runtime::Runtime;

/// Tokens in a batch: enough to fill a GPU.
const TOKENS: u32 = 2048;

/// A text's held-out figures.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    pub bits_per_byte: f64,
    /// The mean gate of each expert, for each adapted layer. Empty without adapters.
    pub gates: [Vec<f64>; 2],
}

/// Sums over a text's tokens, in f64 and in the tokens' order, so that equal losses give equal bits.
#[derive(Clone)]
struct Sums {
    tokens: u64,
    nats: f64,
    gates: [Vec<f64>; 2],
}

/// Scores texts again and again, with adapters that change meanwhile, or without.
pub struct Evaluator<'a> {
    gpu: &'a Gpu,
    model: Model,
    experts: usize,
}

impl<'a> Evaluator<'a> {
    pub async fn prepare(runtime: &'a Runtime, adapters: Option<&Adapters>) -> Result<Self> {
        let model = Model::prepare(runtime, adapters, TOKENS, false).await?;
        let experts = adapters.map_or(0, |adapters| adapters.config.experts as usize);
        Ok(Self { gpu: &runtime.gpu, model, experts })
    }

    /// Scores every text. A batch may have windows of several texts.
    pub async fn score(&mut self, texts: &[Text]) -> Result<Vec<Score>> {
        let none = Sums { tokens: 0, nats: 0.0, gates: ADAPTED.map(|_| vec![0.0; self.experts]) };
        let mut sums = vec![none; texts.len()];
        let mut windows = Vec::with_capacity(TOKENS as usize * WINDOW);
        let mut owners = Vec::with_capacity(TOKENS as usize);
        for (owner, text) in texts.iter().enumerate() {
            for window in text.held_out_windows() {
                windows.extend(window.iter().map(|&byte| u32::from(byte)));
                owners.push(owner);
                if owners.len() == TOKENS as usize {
                    self.add_batch(&windows, &owners, &mut sums).await?;
                    windows.clear();
                    owners.clear();
                }
            }
        }
        if !owners.is_empty() {
            self.add_batch(&windows, &owners, &mut sums).await?;
        }
        Ok(sums.iter().map(Sums::score).collect())
    }

    /// Runs one batch. `owners` are the texts that its windows belong to.
    async fn add_batch(&mut self, windows: &[u32], owners: &[usize], sums: &mut [Sums]) -> Result<()> {
        let Self { gpu, model, .. } = self;
        model.load(&gpu.queue, windows)?;
        gpu.submit(|pass| model.encode(pass))?;
        let losses = gpu.read(&model.activations.losses).await?;
        for (&owner, loss) in owners.iter().zip(losses) {
            sums[owner].tokens += 1;
            sums[owner].nats += f64::from(loss);
        }
        for (layer, saved) in model.activations.saved.iter().flatten().enumerate() {
            let saved = gpu.read(saved).await?;
            let columns = saved.len() / model.capacity.tokens as usize;
            for (&owner, row) in owners.iter().zip(saved.chunks_exact(columns)) {
                let means = &mut sums[owner].gates[layer];
                let gates = &row[columns - means.len()..];
                // With top-k, an expert that was not chosen has a minus.
                for (mean, &gate) in means.iter_mut().zip(gates) {
                    *mean += f64::from(gate.max(0.0));
                }
            }
        }
        Ok(())
    }
}

/// Scores every text once.
pub async fn evaluate(runtime: &Runtime, adapters: Option<&Adapters>, texts: &[Text]) -> Result<Vec<Score>> {
    Evaluator::prepare(runtime, adapters).await?.score(texts).await
}

/// Merges adapters into the base, with the mean gate of each expert over all texts, and scores that without adapters.
/// Also says how far fc1 is from what it was, on the first held-out batch: its inputs are the same with any adapter.
/// The base stays changed.
pub async fn merged(
    runtime: &Runtime,
    adapters: &Adapters,
    scores: &[Score],
    texts: &[Text],
) -> Result<(Vec<Score>, MergeError)> {
    let outputs = async |adapters: Option<&Adapters>| -> Result<Vec<f32>> {
        let mut model = Model::prepare(runtime, adapters, TOKENS, false).await?;
        let windows = texts.iter().flat_map(Text::held_out_windows).take(TOKENS as usize);
        let bytes: Vec<u32> = windows.flatten().map(|&byte| u32::from(byte)).collect();
        model.load(&runtime.gpu.queue, &bytes)?;
        runtime.gpu.submit(|pass| model.encode(pass))?;
        Ok(runtime.gpu.read(&model.activations.outputs[0]).await?)
    };
    let dynamic = outputs(Some(adapters)).await?;
    let config = adapters.config;
    for (layer, adapter) in adapters.download(&runtime.gpu).await?.iter().enumerate() {
        let mean = |expert: usize| {
            scores.iter().map(|score| score.gates[layer][expert]).sum::<f64>() / scores.len() as f64
        };
        let means: Vec<f32> = (0..config.experts as usize).map(|expert| mean(expert) as f32).collect();
        // One expert has the weight 1, and no gate is saved.
        let gates = (config.experts > 1).then_some(means.as_slice());
        let weight = runtime.base.hidden[layer].weight();
        let descriptor = MergeDescriptor { config, adapter, gates, weight, undo: false };
        let merge = Merge::prepare_async(&runtime.kernels, &descriptor).await?;
        runtime.gpu.submit(|pass| merge.encode(pass))?;
    }
    let merged = evaluate(runtime, None, texts).await?;
    Ok((merged, MergeError::between(&dynamic, &outputs(None).await?)?))
}

impl Sums {
    fn score(&self) -> Score {
        let tokens = self.tokens as f64;
        let mean = |sums: &Vec<f64>| sums.iter().map(|sum| sum / tokens).collect();
        Score { bits_per_byte: self.nats / tokens / LN_2, gates: self.gates.each_ref().map(mean) }
    }
}

/// The mean over texts, each with the same weight.
pub fn mean_bits(scores: &[Score]) -> f64 {
    scores.iter().map(|score| score.bits_per_byte).sum::<f64>() / scores.len() as f64
}
