//! The demo's texts, and which bytes a step sees.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::tensor::{Device, Int, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::model::CONTEXT;

/// A text, split into a training part and the last tenth, which is held out.
pub struct Text {
    train: Vec<u8>,
    held_out: Vec<u8>,
}

/// A sequence and the byte after it.
pub type Window = Vec<u8>;

impl Text {
    /// What the base is trained on.
    pub fn base() -> std::io::Result<Self> {
        Self::read("base.txt")
    }

    /// What it is fine-tuned on: four unlike texts.
    pub fn all() -> std::io::Result<Vec<Self>> {
        ["prose.txt", "code.c", "legal", "tables.zi"].into_iter().map(Self::read).collect()
    }

    fn read(name: &str) -> std::io::Result<Self> {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../examples/finetune/data/corpora");
        let mut train = Self::bytes(&corpora.join(name))?;
        let held_out = train.split_off(train.len() - train.len() / 10);
        Ok(Self { train, held_out })
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

    /// Windows of the held-out part, at equal distances.
    pub fn held_out(&self, count: usize) -> Vec<Window> {
        let distance = (self.held_out.len() - CONTEXT - 1) / count;
        (0..count).map(|at| self.held_out[at * distance..][..=CONTEXT].to_vec()).collect()
    }
}

/// Windows to train on, each text's in turn; equal seeds draw the same.
pub fn draw(texts: &[Text], count: usize, seed: u64) -> Vec<Window> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut window = |Text { train, .. }: &Text| {
        let start = random.random_range(0..train.len() - CONTEXT);
        train[start..=start + CONTEXT].to_vec()
    };
    texts.iter().cycle().take(count).map(&mut window).collect()
}

/// Batches of so many windows, in their order.
pub fn loader(windows: Vec<Window>, batch: usize, device: &Device) -> Arc<dyn DataLoader<Batch>> {
    let builder = DataLoaderBuilder::new(Windows).batch_size(batch).set_device(device.clone());
    builder.build(InMemDataset::new(windows))
}

/// Sequences of bytes, and the byte after each byte.
#[derive(Clone, Debug)]
pub struct Batch {
    pub inputs: Tensor<2, Int>,
    pub targets: Tensor<1, Int>,
}

struct Windows;

impl Batcher<Window, Batch> for Windows {
    fn batch(&self, windows: Vec<Window>, device: &Device) -> Batch {
        let tensor = |first: usize| {
            let bytes = windows.iter().flat_map(|window| &window[first..first + CONTEXT]);
            let bytes: Vec<i32> = bytes.map(|&byte| i32::from(byte)).collect();
            Tensor::<2, Int>::from_data(TensorData::new(bytes, [windows.len(), CONTEXT]), device)
        };
        Batch { inputs: tensor(0), targets: tensor(1).reshape([windows.len() * CONTEXT]) }
    }
}
