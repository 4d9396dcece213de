//! What others compute of a model: `HYDRALORA_LLM_GOLDEN`'s file.

use std::collections::BTreeMap;
use std::path::Path;

use hydralora::device::Gpu;
use hydralora_llama::generate::generate;
use hydralora_llama::model::{ENDLESS, Model};
use hydralora_llama::tokenizer::Tokenizer;
use serde::Deserialize;

use crate::error::Error;

/// What a model is compared with.
#[derive(Deserialize)]
pub struct File {
    texts: BTreeMap<String, Text>,
    greedy: BTreeMap<String, Greedy>,
}

/// A text, its tokens, the negative log-likelihood of each after the first, and the best logits after the last.
#[derive(Deserialize)]
struct Text {
    #[serde(rename = "text")]
    own: String,
    ids: Vec<u32>,
    nll: Vec<f64>,
    #[serde(rename = "last_top5")]
    best: Vec<(u32, f64)>,
}

/// A prompt of some tokens, and those that are chosen one after the other for having the largest logit.
#[derive(Deserialize)]
struct Greedy {
    ids: Vec<u32>,
    prompt_tokens: usize,
    smallest_margin: f64,
}

/// How far from the published numbers a model may be: each nll, and their mean in a text.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    pub each: f64,
    pub mean: f64,
}

impl File {
    /// Reads a file of a model with so many tokens.
    pub fn open(path: &Path, vocabulary: u32) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|error| Error::Io { path: path.to_owned(), error })?;
        let file: Self = serde_json::from_slice(&bytes)
            .map_err(|error| Error::Golden { path: path.to_owned(), reason: error.to_string() })?;
        let known = |ids: &[u32], least: usize| ids.len() >= least && ids.iter().all(|&id| id < vocabulary);
        let good =
            |text: &Text| known(&text.ids, 2) && text.best.iter().all(|(token, _)| known(&[*token], 1));
        let whole =
            |greedy: &Greedy| known(&greedy.ids, 2) && (1..greedy.ids.len()).contains(&greedy.prompt_tokens);
        if !(file.texts.values().all(good) && file.greedy.values().all(whole)) {
            let reason = "tokens that the model does not have, or too few".to_owned();
            return Err(Error::Golden { path: path.to_owned(), reason });
        }
        Ok(file)
    }

    /// Tokens of the longest text, of which all losses are computed at once, and of the longest sequence.
    pub fn longest(&self) -> [u32; 2] {
        let most = |lengths: &mut dyn Iterator<Item = usize>| {
            u32::try_from(lengths.max().unwrap_or(0)).unwrap_or(u32::MAX)
        };
        let text = most(&mut self.texts.values().map(|text| text.ids.len()));
        [text, text.max(most(&mut self.greedy.values().map(|greedy| greedy.ids.len())))]
    }
}

/// Compares a model with what it should compute. Prints what it finds, and says whether all of it is right.
pub fn check(
    gpu: &Gpu,
    model: &mut Model,
    tokenizer: &Tokenizer,
    file: &File,
    allowed: Allowed,
) -> Result<bool, Error> {
    let mut right = true;
    for (name, Text { own, ids, nll, best }) in &file.texts {
        let tokens = tokenizer.encode(own)? == *ids && tokenizer.decode(ids)? == *own;
        let parts = [&ids[..ids.len() - 1], &ids[1..]];
        let losses = gpu.block_on(model.losses(gpu, parts, ENDLESS))??;
        let off: Vec<f64> = losses.iter().zip(nll).map(|(own, nll)| f64::from(*own) - nll).collect();
        let worst = off.iter().fold(0.0, |worst: f64, off| worst.max(off.abs()));
        let mean = off.iter().sum::<f64>() / off.len() as f64;
        let logits = gpu.block_on(model.logits(gpu, ids, 0))??;
        let logit = |(token, logit): &(u32, f64)| (f64::from(logits[*token as usize]) - logit).abs();
        let last = best.iter().map(logit).fold(0.0, f64::max);
        let good = tokens && losses.len() == nll.len() && worst <= allowed.each && mean.abs() <= allowed.mean;
        right &= good && last <= 10.0 * allowed.each;
        println!(
            "{name}: tokens {}, nll off by {worst:.1e} at most and {mean:.1e} in the mean, the best logits by {last:.1e}",
            if tokens { "equal" } else { "DIFFER" }
        );
    }
    for (prompt, Greedy { ids, prompt_tokens, smallest_margin }) in &file.greedy {
        let mut own = Vec::new();
        let (prompt_ids, expected) = ids.split_at(*prompt_tokens);
        // Where a text ends is not compared.
        let take = |token| own.push(token);
        gpu.block_on(generate(gpu, model, prompt_ids, expected.len(), &[], take))??;
        let equal = own == expected;
        right &= equal;
        println!(
            "{prompt:?}: the continuation {} (its smallest margin is {smallest_margin:.2})",
            if equal { "is equal" } else { "DIFFERS" }
        );
    }
    Ok(right)
}
