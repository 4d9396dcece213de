//! The demo's texts, and which bytes a step sees.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::model::CONTEXT;

/// A text, split into a training part and the last tenth, which is held out.
pub struct Text {
    pub name: &'static str,
    train: Vec<u8>,
    held_out: Vec<u8>,
}

impl Text {
    /// What the base is trained on.
    pub fn base() -> std::io::Result<Self> {
        Self::read("base", "base.txt")
    }

    /// What it is fine-tuned on: four unlike texts.
    pub fn all() -> std::io::Result<Vec<Self>> {
        let texts = [("prose", "prose.txt"), ("code", "code.c"), ("legal", "legal"), ("tables", "tables.zi")];
        texts.into_iter().map(|(name, file)| Self::read(name, file)).collect()
    }

    fn read(name: &'static str, file: &str) -> std::io::Result<Self> {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/finetune/data/corpora");
        let mut train = Self::bytes(&corpora.join(file))?;
        let held_out = train.split_off(train.len() - train.len() / 10);
        Ok(Self { name, train, held_out })
    }

    /// Of a file, or of all files of a folder in the order of their names.
    fn bytes(path: &Path) -> std::io::Result<Vec<u8>> {
        if !path.is_dir() {
            return std::fs::read(path);
        }
        let files = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path()));
        let mut files = files.collect::<std::io::Result<Vec<PathBuf>>>()?;
        files.sort();
        Ok(files.iter().map(std::fs::read).collect::<std::io::Result<Vec<_>>>()?.concat())
    }

    /// Sequences of the held-out part, at equal distances.
    pub fn held_out(&self, sequences: usize, device: &Device) -> Batch {
        let distance = (self.held_out.len() - CONTEXT - 1) / sequences;
        let windows: Vec<_> = (0..sequences).map(|at| &self.held_out[at * distance..][..=CONTEXT]).collect();
        Batch::new(&windows, device)
    }
}

/// Sequences of bytes, and the byte after each.
pub struct Batch {
    pub inputs: Tensor<2, Int>,
    pub targets: Tensor<1, Int>,
}

impl Batch {
    fn new(windows: &[&[u8]], device: &Device) -> Self {
        let tensor = |first: usize| {
            let bytes = windows.iter().flat_map(|window| &window[first..first + CONTEXT]);
            let bytes: Vec<i32> = bytes.map(|&byte| i32::from(byte)).collect();
            Tensor::<2, Int>::from_data(TensorData::new(bytes, [windows.len(), CONTEXT]), device)
        };
        Self { inputs: tensor(0), targets: tensor(1).reshape([windows.len() * CONTEXT]) }
    }
}

/// Draws batches; equal seeds draw the same.
pub struct Sampler<'a> {
    texts: &'a [Text],
    random: StdRng,
}

impl<'a> Sampler<'a> {
    pub fn new(texts: &'a [Text], seed: u64) -> Self {
        Self { texts, random: StdRng::seed_from_u64(seed) }
    }

    /// As many sequences from each text.
    pub fn draw(&mut self, sequences: usize, device: &Device) -> Batch {
        let mut windows = Vec::new();
        for at in 0..sequences {
            let train = &self.texts[at % self.texts.len()].train;
            let start = self.random.random_range(0..train.len() - CONTEXT);
            windows.push(&train[start..=start + CONTEXT]);
        }
        Batch::new(&windows, device)
    }
}
