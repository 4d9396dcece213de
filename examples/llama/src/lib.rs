//! A model of the `LLaMA` family on the caller's wgpu device, with hydralora's frozen layers and adapters. Nothing here waits for
//! the device: what reads from it is `async`.
#![allow(clippy::missing_errors_doc, clippy::must_use_candidate, reason = "a library for the example")]

pub mod adapters;
mod backward;
pub mod config;
pub mod error;
pub mod generate;
mod gguf;
mod huggingface;
mod matrix;
pub mod model;
pub mod rope;
pub mod shader;
pub mod source;
#[cfg(test)]
mod tests;
pub mod text;
pub mod tokenizer;
pub mod train;
pub mod weights;
