//! What is wrong with a checkpoint.

use std::path::PathBuf;

/// A checkpoint that cannot be loaded, and why.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CheckpointError {
    /// A file could not be read.
    #[error("{path}: {error}", path = path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        error: std::io::Error,
    },
    /// A file is damaged, or is of another format than its name says.
    #[error("{path} is damaged or no such file: {reason}", path = path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A pickle names something that no tensor needs. It is not executed.
    #[error("{path} names {global}, which no tensor needs; nothing was executed", path = path.display())]
    Global {
        /// The file.
        path: PathBuf,
        /// The module and the name.
        global: String,
    },
    /// An option that would change what the layer computes, and is not supported.
    #[error("{option} = {value} changes what the layer computes, and is not supported")]
    Option {
        /// The option in `adapter_config.json`, or the end of a tensor's name.
        option: String,
        /// Its value.
        value: String,
    },
    /// An option is missing, or has a value of the wrong kind.
    #[error("{option} in adapter_config.json is {found}; expected {expected}")]
    Setting {
        /// The option.
        option: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A tensor is missing, unexpected, given twice, or has the wrong shape.
    #[error("module `{module}`: `{key}` should be {expected}, but is {found}")]
    Tensor {
        /// The module.
        module: String,
        /// The tensor's name in the file.
        key: String,
        /// What it should be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A number is infinite or NaN.
    #[error("module `{module}`: `{key}` has {count} numbers that are not finite, the first at {first}")]
    NotFinite {
        /// The module.
        module: String,
        /// The tensor's name in the file.
        key: String,
        /// How many there are.
        count: usize,
        /// The index of the first.
        first: usize,
    },
    /// A layer that the format has no place for.
    #[error("{option} = {value} has no place in a checkpoint")]
    Unstorable {
        /// The option of the layer.
        option: String,
        /// Its value.
        value: String,
    },
    /// A layer or matrices that the library refuses.
    #[error(transparent)]
    Library(#[from] crate::Error),
    /// A module that is another layer than the one it is loaded into.
    #[error("module `{module}` is {found}, and is to be loaded into {expected}")]
    Layer {
        /// The module.
        module: String,
        /// The layer that it is loaded into.
        expected: String,
        /// What it is.
        found: String,
    },
    /// No module has this name.
    #[error("there is no module `{module}`")]
    UnknownModule {
        /// The name.
        module: String,
    },
}
