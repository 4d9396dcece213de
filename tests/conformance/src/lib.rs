//! The conformance suite. It compares every kernel on every adapter with float64 twins, which derive their
//! bounds, and with the results of the official code. It also checks the library's promises that are not
//! about numbers. It runs as `cargo test --test conformance`, as `cargo xtask conformance`, as the
//! executable that `cargo xtask bundle` builds, and in a browser, as a page of the package `hydralora-web`.
//!
//! Trials are named `[adapter] kernel/options/element/shape/...`. A case that a device cannot run is counted
//! separately, with the reason.
//!
//! What a browser can run never blocks: a trial is a future. What needs files, threads, processes or a driver's own
//! functions is in `native`.

mod case;
mod cases;
mod compare;
mod device;
mod goldens;
mod inputs;
mod job;
mod known;
mod line;
mod modes;
#[cfg(not(target_arch = "wasm32"))]
mod native;
mod op;
mod partition;
mod properties;
mod random;
mod report;
mod suite;

pub use device::{Device, Identity, LIMITS, WgpuDevice, limits_that_count};
pub use known::{KNOWN, Known};
#[cfg(not(target_arch = "wasm32"))]
pub use native::{Options, permutations, run};
pub use partition::Partition;
pub use report::{Record, Report, Status};
pub use suite::{Plan, Selection, kind, plans, run as run_trial, seed};
