//! The program's files: texts, adapters and the state of training.

use std::path::{Path, PathBuf};

use hydralora::checkpoint::{self, Checkpoint, ModuleState};
use hydralora::device::Gpu;
use hydralora_finetune::Result;
use hydralora_finetune::adapters::Adapters;
use hydralora_finetune::base::ADAPTED;
use hydralora_finetune::corpus::{DEFAULTS, Text};
use hydralora_finetune::train::State;

/// A user's text: `NAME=FILE`.
#[derive(Debug, Clone)]
pub struct Source {
    name: String,
    file: PathBuf,
}

/// The four default texts.
pub fn defaults(corpora: &Path) -> Result<Vec<Text>> {
    let text = |(name, file, published): (&str, &str, f64)| -> Result<Text> {
        let mut text = Text::new(name, read(&corpora.join(file))?)?;
        text.published = Some(published);
        Ok(text)
    };
    DEFAULTS.into_iter().map(text).collect()
}

/// The user's own texts.
pub fn from_sources(sources: &[Source]) -> Result<Vec<Text>> {
    for (at, source) in sources.iter().enumerate() {
        if sources[..at].iter().any(|earlier| earlier.name == source.name) {
            return Err(format!("two texts are called `{}`", source.name).into());
        }
    }
    sources.iter().map(|source| Ok(Text::new(&source.name, read(&source.file)?)?)).collect()
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
pub fn read(path: &Path) -> Result<Vec<u8>> {
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

/// Saves both adapters into a folder, with the reference code's names.
pub async fn save(gpu: &Gpu, adapters: &Adapters, folder: &Path) -> Result<()> {
    let matrices = adapters.download(gpu).await?;
    Ok(checkpoint::save(folder, &adapters.modules(), |name| Ok(matrices[layer(name)].clone()))?)
}

/// The adapters that a folder has.
pub fn load(gpu: &Gpu, folder: &Path) -> Result<Adapters> {
    Adapters::load(gpu, &Checkpoint::open(folder)?)
}

/// Saves the state of training.
pub fn save_training(adapters: &Adapters, state: &State, folder: &Path) -> Result<()> {
    Ok(checkpoint::save_training(folder, &adapters.modules(), state.step, |name| {
        Ok(state.modules[layer(name)].clone())
    })?)
}

/// The state of training that was saved of adapters like these.
pub fn load_training(adapters: &Adapters, folder: &Path) -> Result<State> {
    let saved = checkpoint::Training::open(folder)?;
    let module = |layer: usize| -> Result<ModuleState> {
        let (name, config) = &adapters.modules()[layer];
        Ok(saved.module(name, config)?)
    };
    Ok(State { step: saved.step(), modules: [module(0)?, module(1)?] })
}

fn layer(name: &str) -> usize {
    usize::from(name != ADAPTED[0])
}
