//! The texts: where they come from, which part is held out, and which bytes a step sees.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Bytes that the base sees.
pub const CONTEXT: usize = 16;
/// The context and the byte to predict.
pub const WINDOW: usize = CONTEXT + 1;

/// A text, split into a training part and a held-out part, the last tenth.
pub struct Text {
    pub name: String,
    train: Vec<u8>,
    held_out: Vec<u8>,
    /// The base's held-out bits per byte, as data/README.md gives them.
    pub published: Option<f64>,
}

/// The default texts: the name of each, its file or folder in data/corpora, and the base's held-out bits per byte.
pub const DEFAULTS: [(&str, &str, f64); 4] = [
    ("prose", "prose.txt", 2.856),
    ("code", "code.c", 5.294),
    ("legal", "legal", 4.383),
    ("tables", "tables.zi", 10.179),
];

/// A text that is too short to be split.
#[derive(Debug, thiserror::Error)]
#[error(
    "the text `{name}` has {bytes} bytes, but at least {} are needed: its last tenth is held out and each prediction \
     takes {WINDOW} bytes", 10 * WINDOW
)]
pub struct TooShort {
    name: String,
    bytes: usize,
}

impl Text {
    pub fn new(name: &str, mut bytes: Vec<u8>) -> Result<Self, TooShort> {
        let held_out = bytes.split_off(bytes.len() - bytes.len() / 10);
        if held_out.len() < WINDOW {
            return Err(TooShort { name: name.to_owned(), bytes: bytes.len() + held_out.len() });
        }
        Ok(Self { name: name.to_owned(), train: bytes, held_out, published: None })
    }

    /// The text that the base was trained on: two texts of equal length, joined. The last tenth of each is held
    /// out.
    pub fn of_base(bytes: &[u8]) -> Result<Self, TooShort> {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let (first, second) =
            (Self::new("base.txt", first.to_vec())?, Self::new("base.txt", second.to_vec())?);
        Ok(Self {
            train: [first.train, second.train].concat(),
            held_out: [first.held_out, second.held_out].concat(),
            published: Some(2.152),
            ..first
        })
    }

    /// Pieces of the training part at equal distances, at most `count`.
    pub fn pieces(&self, length: usize, count: usize) -> impl Iterator<Item = &[u8]> {
        let pieces = self.train.len().div_ceil(length);
        self.train.chunks(length).step_by(pieces.div_ceil(count).max(1))
    }

    /// The same text with only so many held-out windows, the first ones.
    #[must_use]
    pub fn sample(&self, windows: usize) -> Self {
        let held_out = &self.held_out[..self.held_out.len().min(windows.saturating_add(CONTEXT))];
        Self { name: self.name.clone(), train: Vec::new(), held_out: held_out.to_vec(), published: None }
    }

    /// A window for every held-out byte that has `CONTEXT` held-out bytes before it.
    pub fn held_out_windows(&self) -> impl Iterator<Item = &[u8]> {
        self.held_out.windows(WINDOW)
    }
}

/// Draws the windows of steps. Equal seeds give equal windows, whatever is trained on them.
pub struct Sampler<'a> {
    texts: &'a [Text],
    random: StdRng,
}

impl<'a> Sampler<'a> {
    pub fn new(texts: &'a [Text], seed: u64) -> Self {
        Self { texts, random: StdRng::seed_from_u64(seed) }
    }

    /// Draws `count` windows, an equal share from each text, at random places of its training part.
    pub fn draw(&mut self, count: usize) -> Vec<u32> {
        let mut drawn = Vec::with_capacity(count * WINDOW);
        for at in 0..count {
            let train = &self.texts[at * self.texts.len() / count].train;
            let start = self.random.random_range(0..=train.len() - WINDOW);
            drawn.extend(train[start..start + WINDOW].iter().map(|&byte| u32::from(byte)));
        }
        drawn
    }
}
