//! What the benches measure: the library's operations and two alternatives to them, on the same inputs.
#![allow(
    clippy::missing_errors_doc,
    clippy::must_use_candidate,
    reason = "a library for the benches, their tests and the peers"
)]

pub mod alternatives;
pub mod contest;
pub mod frozen;
pub mod grid;
pub mod layer;
pub mod recorder;
pub mod step;
