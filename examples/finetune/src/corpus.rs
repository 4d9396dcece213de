//! The texts: where they come from, which part is held out, and which bytes a step sees.

use std::path::{Path, PathBuf};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::Result;

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

/// A user's text: `NAME=FILE`.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    file: PathBuf,
}

/// The four default texts.
pub fn defaults(corpora: &Path) -> Result<Vec<Text>> {
    let text = |name: &str, file: &str, published| {
        Text::new(name, read(&corpora.join(file))?).map(|text| Text { published: Some(published), ..text })
    };
    Ok(vec![
        text("prose", "prose.txt", 2.856)?,
        text("code", "code.c", 5.294)?,
        text("legal", "legal", 4.383)?,
        text("tables", "tables.zi", 10.179)?,
    ])
}

/// The text that the base was trained on: two texts of equal length, joined. The last tenth of each is held
/// out.
pub fn base(corpora: &Path) -> Result<Text> {
    let bytes = read(&corpora.join("base.txt"))?;
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let (first, second) = (Text::new("base.txt", first.to_vec())?, Text::new("base.txt", second.to_vec())?);
    Ok(Text {
        train: [first.train, second.train].concat(),
        held_out: [first.held_out, second.held_out].concat(),
        published: Some(2.152),
        ..first
    })
}

/// The user's own texts.
pub fn from_sources(sources: &[Source]) -> Result<Vec<Text>> {
    for (at, source) in sources.iter().enumerate() {
        if sources[..at].iter().any(|earlier| earlier.name == source.name) {
            return Err(format!("two texts are called `{}`", source.name).into());
        }
    }
    sources.iter().map(|source| Text::new(&source.name, read(&source.file)?)).collect()
}

impl std::str::FromStr for Source {
    type Err = &'static str;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, file)) if !name.is_empty() && !file.is_empty() => {
                Ok(Self { name: name.to_owned(), file: file.into() })
            }
            _ => Err("expected NAME=FILE"),
        }
    }
}

/// Reads a file, or all files of a folder, joined in the order of their names.
fn read(path: &Path) -> Result<Vec<u8>> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    if !path.is_dir() {
        return Ok(std::fs::read(path).map_err(named)?);
    }
    let entries = std::fs::read_dir(path).map_err(named)?.collect::<std::io::Result<Vec<_>>>();
    let mut files: Vec<PathBuf> = entries.map_err(named)?.iter().map(std::fs::DirEntry::path).collect();
    files.retain(|file| file.is_file());
    files.sort();
    Ok(files.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?.concat())
}

impl Text {
    fn new(name: &str, mut bytes: Vec<u8>) -> Result<Self> {
        let held_out = bytes.split_off(bytes.len() - bytes.len() / 10);
        if held_out.len() < WINDOW {
            return Err(format!(
                "the text `{name}` has {} bytes, but at least {} are needed: its last tenth is held out and \
                 each prediction takes {WINDOW} bytes",
                bytes.len() + held_out.len(),
                10 * WINDOW
            )
            .into());
        }
        Ok(Self { name: name.to_owned(), train: bytes, held_out, published: None })
    }

    /// Pieces of the training part at equal distances, at most `count`.
    pub fn pieces(&self, length: usize, count: usize) -> impl Iterator<Item = &[u8]> {
        let pieces = self.train.len().div_ceil(length);
        self.train.chunks(length).step_by(pieces.div_ceil(count).max(1))
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
