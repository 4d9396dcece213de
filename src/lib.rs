#![doc = include_str!("../docs/crate.md")]
#![deny(missing_docs)]
// One block is allowed and argued: see `pipeline::trusted_module`.
#![deny(unsafe_code)]

mod adapter;
mod config;
pub mod device;
mod element;
mod error;
#[cfg(not(target_arch = "wasm32"))]
mod iterations;
mod layout;
mod memory;
pub mod op;
mod pipeline;
mod plan;
mod scope;
pub mod shader;
pub mod stopwatch;
mod tensor;
#[cfg(feature = "tuner")]
pub mod tuner;
mod tuning;
#[cfg(feature = "twin")]
pub mod twin;

pub use config::{Config, Router};
pub use element::Element;
pub use error::{Error, Limit};
pub use layout::{Adapter, Block, Layout};
pub use memory::Memory;
pub use op::{
    AdamW, AdamWDescriptor, AdamWHyper, AdamWStatus, BackwardInput, BackwardInputDescriptor, BackwardParams,
    BackwardParamsDescriptor, Forward, ForwardDescriptor, Linear, LinearDescriptor,
};
pub use pipeline::Kernels;
pub use plan::{DeviceProfile, DispatchPlan, FusedChoice, OuterChoice, Work};
pub use shader::{LinearDirection, WriteMode};
pub use tensor::Tensor;
pub use tuning::{Choice, Operation, Tuning};
/// The wgpu this release is built on: wgpu 30.
pub use wgpu;
