//! What can be wrong with a model's files, with a device for it, or with what it is given.

use std::path::PathBuf;

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
    #[error("{path}: the tokenizer has token {token}, and the model {vocabulary} tokens", path = path.display())]
    Vocabulary { path: PathBuf, token: u32, vocabulary: u32 },
    #[error(
        "{rows} rows of `{name}` need {needed} bytes, and a binding of this device has at most {allowed}"
    )]
    TooLarge { name: String, rows: u32, needed: u64, allowed: u64 },
    #[error(
        "`{name}` of {tokens} tokens needs {needed} bytes, and a binding of this device has at most {allowed}: take fewer \
         tokens at a time"
    )]
    Activations { name: &'static str, tokens: u32, needed: u64, allowed: u64 },
    #[error("sequences of {tokens} tokens, and the model's context has {context}: take shorter ones")]
    LongContext { tokens: u32, context: u32 },
    #[error(
        "a sequence of {tokens} tokens, prompt and all, and there is room for {context}: take a longer context, or fewer tokens"
    )]
    Context { tokens: u64, context: u32 },
    #[error("{tokens} tokens at a time, and there is room for {capacity}: take fewer, or a larger capacity")]
    Capacity { tokens: u64, capacity: u32 },
    #[error("no tokens: give at least one")]
    NoTokens,
    #[error("token {token}, and the model has {vocabulary}: take the model's own tokenizer")]
    Token { token: u32, vocabulary: u32 },
    #[error(
        "`{name}` has a part of {tokens} tokens, and {needed} are needed: take a longer text, or shorter sequences"
    )]
    ShortText { name: String, tokens: usize, needed: u32 },
    #[error("{path}: the tokenizer: {reason}", path = path.display())]
    Tokenizer { path: PathBuf, reason: String },
    #[error(transparent)]
    Library(#[from] hydralora::Error),
}
