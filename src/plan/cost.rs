//! The planner's cost model, in units of a vec4 multiply-add in a thread. Only the ratios between plans of
//! one operation matter.

use super::DeviceProfile;

/// The costs on one kind of device.
pub(super) struct Costs {
    /// Reading a vec4 of a tensor.
    pub(super) load: f64,
    /// Writing a vec4 of a tensor.
    pub(super) store: f64,
    /// Reading a vec4 of workgroup memory, or adding a vec4 of another lane.
    pub(super) shared: f64,
    /// Receiving a vec4 that another lane broadcasts.
    pub(super) broadcast: f64,
    /// A vec4 multiply-add in registers.
    pub(super) multiply_add: f64,
    /// A pair of barriers.
    pub(super) barriers: f64,
    /// Starting a workgroup, including the barriers that every workgroup has.
    pub(super) workgroup: f64,
    /// Starting a dispatch after the one before it has ended.
    pub(super) dispatch: f64,
    /// Slowdown of a shrink that adds sums by shuffles with barriers inside its loops, where compilers may
    /// spill the sums to memory.
    pub(super) interrupted: f64,
    /// Slowdown of loads that go down a matrix, one vec4 of each row: every one of them misses the caches.
    pub(super) downwards: f64,
}

/// Lanes run together, and accesses of neighbouring lanes coalesce. Estimated: no GPU has been measured yet.
pub(super) const GPU: Costs = Costs {
    load: 4.0,
    store: 4.0,
    shared: 1.0,
    broadcast: 4.0,
    multiply_add: 1.0,
    barriers: 100.0,
    workgroup: 500.0,
    dispatch: 2000.0,
    interrupted: 1.0,
    downwards: 1.0,
};

/// The number of times that `workgroups` fill the device: at least 1.
pub(super) fn filled(workgroups: f64, device: &DeviceProfile) -> f64 {
    (workgroups / f64::from(device.busy_workgroups.max(1))).max(1.0)
}
