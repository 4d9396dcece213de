//! The demo without its command line, files and pictures: a small frozen language model on a GPU, fine-tuned with
//! HydraLoRA and with plain LoRA. Nothing here waits, so that it also runs in a browser.
#![allow(
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    reason = "a library for the demo and its page"
)]

pub mod adapters;
pub mod backward;
pub mod base;
pub mod clusters;
pub mod corpus;
pub mod evaluate;
pub mod model;
pub mod runtime;
pub mod shader;
pub mod train;

pub type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;
