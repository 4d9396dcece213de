//! The library's tests, besides the conformance suite. Tests that need an adapter fail without one, and say
//! how to get one.

mod batch;
mod calibration;
mod checkpoints;
mod common;
mod errors;
mod merge;
mod readme;
mod tuner;
mod twin;
mod work;
