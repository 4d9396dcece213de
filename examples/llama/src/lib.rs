//! A model of the `LLaMA` family on the caller's wgpu device, with hydralora's frozen layers and adapters. Nothing here waits for
//! the device: what reads from it is `async`.
//!
//! ```no_run
//! use hydralora::device::Gpu;
//! use hydralora::{Element, Kernels, wgpu};
//! use hydralora_llama::generate::generate;
//! use hydralora_llama::model::{Model, Use};
//! use hydralora_llama::shader::Shaders;
//! use hydralora_llama::source::Source;
//! use hydralora_llama::weights::Weights;
//!
//! async fn write(device: wgpu::Device, queue: wgpu::Queue) -> Result<(), Box<dyn std::error::Error>> {
//!     let gpu = Gpu { device, queue };
//!     let kernels = Kernels::new(&gpu.device, &gpu.queue);
//!     let source = Source::open("model.gguf".as_ref())?;
//!     let weights = Weights::load(&gpu, &source, Element::F16)?;
//!     let shaders = Shaders::compile(&gpu.device, &source.config, weights.element).await?;
//!     let how = Use { capacity: 256, context: 2048, training: None };
//!     let mut model = Model::new(&gpu, &kernels, &weights, &shaders, None, how).await?;
//!     let prompt = source.tokenizer.prompt("The parties agree that")?;
//!     let mut text = source.tokenizer.stream();
//!     let show = |token| print!("{}", text.push(token).unwrap_or_default());
//!     generate(&gpu, &mut model, &prompt, 32, source.tokenizer.ends(), show).await?;
//!     Ok(())
//! }
//! ```
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
