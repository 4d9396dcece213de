//! What the planner believes things cost, in multiples of a vec4 multiply-add in a thread. Only ratios
//! between plans of one operation count.

use super::DeviceProfile;

/// Reading or writing a vec4 of a tensor.
pub(super) const LOAD: f64 = 4.0;
/// Reading a vec4 of workgroup memory.
pub(super) const SHARED: f64 = 1.0;
/// A vec4 multiply-add in registers.
pub(super) const FMA: f64 = 1.0;
/// A pair of barriers.
pub(super) const BARRIERS: f64 = 100.0;
/// Starting a workgroup, and the barriers that every one has.
pub(super) const WORKGROUP: f64 = 500.0;

/// How often `workgroups` fill the device: not less than once, however few they are.
pub(super) fn filled(workgroups: f64, device: &DeviceProfile) -> f64 {
    (workgroups / f64::from(device.busy_workgroups.max(1))).max(1.0)
}
