//! What can be wrong with a model's files, or with a device for it.

use std::path::PathBuf;

use crate::matrix::PART_ROWS;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {error}", path = path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{path} is damaged, or of another format: {reason}", path = path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{path}: `{key}` should be {expected}, but is {found}", path = path.display())]
    Metadata { path: PathBuf, key: String, expected: &'static str, found: String },
    #[error("{path}: the tensor `{name}` should be {expected}, but is {found}", path = path.display())]
    Tensor { path: PathBuf, name: String, expected: String, found: String },
    #[error("{path}: {what} = {value} is not supported", path = path.display())]
    Unsupported { path: PathBuf, what: &'static str, value: String },
    #[error(
        "{PART_ROWS} rows of `{name}` need {needed} bytes, and a binding of this device has at most {allowed}"
    )]
    TooLarge { name: String, needed: u64, allowed: u64 },
    #[error(
        "`{name}` of {tokens} tokens needs {needed} bytes, and a binding of this device has at most {allowed}: take \
         a shorter --sequence"
    )]
    Activations { name: String, tokens: u32, needed: u64, allowed: u64 },
    #[error("{tokens} tokens from position {position} on; the context has {context}")]
    Context { tokens: u32, position: u32, context: u32 },
    #[error(
        "`{name}` has a part of {tokens} tokens, and {needed} are needed: take a longer text or a shorter --sequence"
    )]
    ShortText { name: String, tokens: usize, needed: u32 },
    #[error("the adapter of `{module}` is not what was saved")]
    Reloaded { module: String },
    #[error("{taken} steps were taken already: --steps {steps} leaves none")]
    Trained { taken: u32, steps: u32 },
    #[error("name a model with --model PATH")]
    NoModel,
    #[error("--save and --resume are for training: name the texts with --text")]
    NoTexts,
    #[error("a picture: {0}")]
    Picture(String),
    #[error("the tokenizer: {0}")]
    Tokenizer(String),
    #[error(transparent)]
    Library(#[from] hydralora::Error),
    #[error(transparent)]
    Checkpoint(#[from] hydralora::checkpoint::CheckpointError),
}
