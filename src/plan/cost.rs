//! What the planner believes things cost, in multiples of a vec4 multiply-add in a thread. Only ratios
//! between plans of one operation count.

use super::DeviceProfile;

/// The costs on one kind of device.
pub(super) struct Costs {
    /// Reading a vec4 of a tensor.
    pub(super) load: f64,
    /// Writing one.
    pub(super) store: f64,
    /// Reading a vec4 of workgroup memory, or adding one from another lane.
    pub(super) shared: f64,
    /// Getting a vec4 that another lane holds.
    pub(super) broadcast: f64,
    /// A vec4 multiply-add in registers.
    pub(super) multiply_add: f64,
    /// A pair of barriers.
    pub(super) barriers: f64,
    /// Starting a workgroup, and the barriers that every one has.
    pub(super) workgroup: f64,
    /// Starting a dispatch when the one before has ended.
    pub(super) dispatch: f64,
    /// Times what a shrink takes with barriers inside its loops: there, compilers may keep sums in memory.
    pub(super) interrupted: f64,
}

/// Lanes run together, and their neighbouring accesses are one. Estimated; no GPU has been measured yet.
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
};

/// How often `workgroups` fill the device: not less than once, however few they are.
pub(super) fn filled(workgroups: f64, device: &DeviceProfile) -> f64 {
    (workgroups / f64::from(device.busy_workgroups.max(1))).max(1.0)
}
