//! The texts that a model is trained on and held against.

use std::path::Path;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::error::Error;
use crate::tokenizer::Tokenizer;

/// A text in two parts: the first nine tenths of its bytes to train on, and the rest.
pub struct Text {
    pub name: String,
    train: Vec<u32>,
    held_out: Vec<u32>,
}

/// The predictions of a window of the held-out part.
pub const WINDOW: u32 = 128;

impl Text {
    /// A text that has at least one window of so many predictions in either part.
    pub fn new(name: &str, text: &str, window: u32, tokenizer: &Tokenizer) -> Result<Self, Error> {
        let mut cut = text.len() * 9 / 10;
        while !text.is_char_boundary(cut) {
            cut -= 1;
        }
        let (train, held_out) = (tokenizer.encode(&text[..cut])?, tokenizer.encode(&text[cut..])?);
        for (part, window) in [(&train, window), (&held_out, WINDOW)] {
            if part.len() <= window as usize {
                let (name, tokens) = (name.to_owned(), part.len());
                return Err(Error::ShortText { name, tokens, needed: window + 1 });
            }
        }
        Ok(Self { name: name.to_owned(), train, held_out })
    }

    /// The inputs of the first held-out windows, and what follows each.
    pub fn held_out(&self, windows: usize) -> [&[u32]; 2] {
        let count = (self.held_out.len().saturating_sub(1) / WINDOW as usize).min(windows) * WINDOW as usize;
        [&self.held_out[..count], &self.held_out[1..=count]]
    }
}

/// Draws batches: a window of each text, from a random place.
pub struct Sampler<'a> {
    texts: &'a [Text],
    window: u32,
    random: StdRng,
}

impl<'a> Sampler<'a> {
    pub fn new(texts: &'a [Text], window: u32, seed: u64) -> Self {
        Self { texts, window, random: StdRng::seed_from_u64(seed) }
    }

    /// Predictions from each text.
    pub fn window(&self) -> u32 {
        self.window
    }

    /// The inputs, and what follows each.
    pub fn draw(&mut self) -> [Vec<u32>; 2] {
        let window = self.window as usize;
        let mut batch = [Vec::new(), Vec::new()];
        for text in self.texts {
            let at = self.random.random_range(0..text.train.len() - window);
            batch[0].extend(&text.train[at..at + window]);
            batch[1].extend(&text.train[at + 1..=at + window]);
        }
        batch
    }
}

/// Reads a file, or all files of a folder in the order of their names, as one text.
pub fn read(path: &Path) -> Result<String, Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Error::Io { path, error }
    };
    if !path.is_dir() {
        return std::fs::read_to_string(path).map_err(failed(path));
    }
    let entries = std::fs::read_dir(path).map_err(failed(path))?;
    let mut files: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(failed(path))?;
    files.sort();
    files.iter().map(|file| read(file)).collect()
}
