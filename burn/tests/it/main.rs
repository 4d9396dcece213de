//! The module on burn's wgpu device, as this machine has it, and on a device of burn's without the kernels.

mod common;
mod goldens;
mod memory;
mod mistakes;
mod options;
mod records;
mod reported;
mod training;
