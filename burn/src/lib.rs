#![deny(missing_docs)]
#![doc = include_str!("../README.md")]

mod call;
mod config;
mod context;
mod cube;
mod error;
mod formula;
mod hydra;
mod linear;
mod ops;

pub use config::HydraLoraConfig;
#[cfg(not(target_family = "wasm"))]
pub use context::init;
pub use context::{init_async, is_registered, register};
pub use error::Error;
pub use hydra::{Extras, HydraLora};
/// The library under this package, for its configuration, adapters and checkpoints.
pub use hydralora;
pub use linear::HydraLinear;
