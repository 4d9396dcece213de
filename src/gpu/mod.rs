//! Runs recordings on the caller's wgpu device. It never waits for the device and never submits.

mod batch;
mod bind;
mod kernels;
mod pipeline;
mod scope;
mod tensor;

pub use batch::Batch;
pub use bind::{Bound, Prepared};
pub use kernels::Kernels;
pub(crate) use kernels::Varied;
#[cfg(any(test, feature = "tuner"))]
pub(crate) use pipeline::entry as layout_entry;
#[cfg(test)]
pub(crate) use pipeline::trusted_module;
pub(crate) use scope::{Scopes, ready_now, scoped};
pub use tensor::Tensor;
