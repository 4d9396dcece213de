#![doc = include_str!("../docs/crate.md")]
#![deny(missing_docs)]
// One unsafe block is allowed, and justified where it stands: see `gpu::pipeline::trusted_module`.
#![deny(unsafe_code)]
#![cfg_attr(
    target_arch = "wasm32",
    allow(
        clippy::arc_with_non_send_sync,
        clippy::drop_non_drop,
        reason = "browsers' objects stay in their thread, and their files are none"
    )
)]

mod adamw;
#[cfg(feature = "checkpoint")]
pub mod checkpoint;
mod element;
mod error;
mod gpu;
mod host;
#[cfg(not(target_arch = "wasm32"))]
mod iterations;
pub mod kernel;
mod layer;
mod memory;
mod merge;
mod plan;
mod planner;
mod recording;
mod stack;
#[cfg(feature = "twin")]
pub mod twin;

pub use adamw::{AdamW, AdamWBuffers, AdamWDescriptor, AdamWStatus, parameter_groups};
pub use element::Element;
pub use error::{Error, Limit};
pub use gpu::{Batch, Bound, Kernels, Prepared, Tensor};
#[cfg(feature = "tuner")]
pub use host::{calibration, tuner};
pub use host::{device, stopwatch};
pub use layer::schedule;
pub use layer::{
    AdamWHyper, Adapter, BackwardInputOptions, BackwardParamsOptions, Block, Config, Dropout, DropoutOf,
    ForwardOptions, GateGradient, GateGradientsOptions, GateLossesOptions, GateRows, GroupHyper, Groups,
    Layout, LinearDirection, LinearOptions, Operation, Pack, ParameterGroup, Place, Router, Sharing,
    Weighting, WriteMode,
};
pub use memory::Memory;
pub use merge::{Merge, MergeDescriptor, MergeError};
pub use plan::{
    Capacity, Choice, DeviceNumbers, DeviceProfile, FusedChoice, Grid, LinearChoice, LinearWay, OuterChoice,
    Plans, Tile, Tuning,
};
pub use planner::Planner;
pub use recording::{Operand, Recording, Slot, Step, Work};
pub use stack::{Stack, StackDescriptor};
/// The wgpu this release is built on: wgpu 30.
pub use wgpu;
