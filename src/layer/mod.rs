//! The computation: the layer, its parameters and the operations on it. Plain data, without a device.

mod adapter;
mod config;
mod describe;
mod dropout;
mod hyper;
mod layout;
mod operation;
mod pack;
mod random;
pub mod schedule;

pub use adapter::Adapter;
pub use config::{Config, Router, Sharing, Weighting};
pub(crate) use config::{Gate, Logits};
pub use dropout::{Dropout, DropoutOf};
pub(crate) use hyper::check_number;
pub use hyper::{AdamWHyper, GroupHyper, Groups, ParameterGroup};
pub use layout::{Block, Layout};
pub(crate) use operation::Needs;
pub use operation::{
    BackwardInputOptions, BackwardParamsOptions, ForwardOptions, GateGradient, GateGradientsOptions,
    GateLossesOptions, GateRows, LinearDirection, LinearOptions, Operation, WriteMode,
};
pub(crate) use pack::Shelves;
pub use pack::{Pack, Place};
#[cfg(any(test, feature = "tuner"))]
pub(crate) use random::SplitMix64;
