//! The library's tests, beside the conformance suite. Without an adapter those that need one fail and say how to
//! get one.

mod batch;
mod calibration;
mod common;
mod errors;
mod readme;
mod tuner;
mod twin;
mod work;
