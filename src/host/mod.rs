//! Helpers for stand-alone programs: creating devices, moving data, waiting and measuring. Nothing else in
//! the library creates a device, submits or waits.

#[cfg(feature = "tuner")]
pub mod calibration;
pub mod device;
pub mod stopwatch;
#[cfg(feature = "tuner")]
pub mod tuner;
