//! What can go wrong on a stranger's device, as pages are told.

use std::error::Error;

use hydralora::checkpoint::CheckpointError;
use hydralora_benches::contest;
use hydralora_finetune::corpus::TooShort;
use serde::Serialize;
use wasm_bindgen::JsValue;

use crate::value;

/// A failure of a kind that `pages/trouble.js` knows.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub kind: Kind,
    /// What happened, with the numbers.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// The browser has WebGPU, but offers no adapter.
    NoAdapter,
    /// The browser has an adapter, but gives no device of it.
    Refused,
    /// The device allows less than is needed.
    Limit,
    /// The device was lost.
    Lost,
    /// The device has too little memory.
    Memory,
    /// A file is no adapter that fits.
    File,
    /// A text is too short.
    Text,
    /// Something typed is no shape.
    Shape,
    /// Anything else.
    Other,
}

impl Failure {
    pub(crate) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl From<hydralora::Error> for Failure {
    fn from(error: hydralora::Error) -> Self {
        let kind = match &error {
            hydralora::Error::NoAdapter { .. } => Kind::NoAdapter,
            hydralora::Error::OverLimit { .. } => Kind::Limit,
            // wgpu tells them only by what it says.
            hydralora::Error::Device { message, .. } => {
                let message = message.to_lowercase();
                if message.contains("lost") {
                    Kind::Lost
                } else if message.contains("memory") {
                    Kind::Memory
                } else {
                    Kind::Other
                }
            }
            _ => Kind::Other,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<CheckpointError> for Failure {
    fn from(error: CheckpointError) -> Self {
        Self::new(Kind::File, error.to_string())
    }
}

impl From<contest::Failure> for Failure {
    fn from(failure: contest::Failure) -> Self {
        match failure {
            contest::Failure::Library(error) => error.into(),
            contest::Failure::OverLimit { .. } => Self::new(Kind::Limit, failure.to_string()),
            contest::Failure::Disagree { .. } => Self::new(Kind::Other, failure.to_string()),
        }
    }
}

impl From<TooShort> for Failure {
    fn from(error: TooShort) -> Self {
        Self::new(Kind::Text, error.to_string())
    }
}

/// What the demo passes on.
impl From<Box<dyn Error>> for Failure {
    fn from(error: Box<dyn Error>) -> Self {
        let error = match error.downcast::<hydralora::Error>() {
            Ok(error) => return (*error).into(),
            Err(error) => error,
        };
        match error.downcast::<CheckpointError>() {
            Ok(error) => (*error).into(),
            Err(error) => Self::new(Kind::Other, error.to_string()),
        }
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> Self {
        value::of(&failure)
    }
}

#[cfg(test)]
mod tests {
    use super::{Failure, Kind};

    #[test]
    fn errors_are_of_the_kind_that_the_page_explains() {
        let device = |message: &str| hydralora::Error::Device {
            action: "creating the buffer x".to_owned(),
            message: message.to_owned(),
        };
        let over = hydralora::Error::OverLimit {
            what: "the buffer x".to_owned(),
            limit: hydralora::Limit::BufferSize,
            needed: 2,
            allowed: 1,
            fix: "request more",
        };
        for (error, kind) in [
            (device("the device was lost or destroyed"), Kind::Lost),
            (device("Out of memory"), Kind::Memory),
            (device("something else"), Kind::Other),
            (over, Kind::Limit),
            (hydralora::Error::NoOptimiser, Kind::Other),
        ] {
            let message = error.to_string();
            let failure = Failure::from(error);
            assert_eq!((failure.kind, &failure.message), (kind, &message));
        }
    }
}
