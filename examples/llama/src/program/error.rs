//! What the program refuses, beside what the library does.

use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: {error}", path = path.display())]
    Io { path: PathBuf, error: std::io::Error },
    #[error("{path} does not fit the model: {reason}", path = path.display())]
    Golden { path: PathBuf, reason: String },
    #[error(
        "the check of gradients takes a text of more than {needed} tokens, and its own has {tokens} with this tokenizer"
    )]
    FewTokens { needed: u32, tokens: usize },
    #[error("the adapter of `{module}` is not what was saved")]
    Reloaded { module: String },
    #[error("{taken} steps were taken already: --steps {steps} leaves none")]
    Trained { taken: u32, steps: u32 },
    #[error("name a model with --model PATH")]
    NoModel,
    #[error("name texts to train on with --text, or let the model write with --generate \"PROMPT\"")]
    NothingToDo,
    #[error("--save and --resume are for training: name the texts with --text")]
    NoTexts,
    #[error("a picture: {0}")]
    Picture(String),
    #[error(transparent)]
    Model(#[from] hydralora_llama::error::Error),
    #[error(transparent)]
    Library(#[from] hydralora::Error),
    #[error(transparent)]
    Checkpoint(#[from] hydralora::checkpoint::CheckpointError),
}
