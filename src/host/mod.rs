//! Helpers for stand-alone programs: creating devices, moving data, waiting and measuring. Nothing else in
//! the library creates a device, submits or waits.

#[cfg(feature = "tuner")]
pub mod calibration;
pub mod device;
#[cfg(feature = "checkpoint")]
mod saving;
pub mod stopwatch;
#[cfg(feature = "tuner")]
pub mod tuner;
