//! What a device is, for the planner.

use super::quirks;

/// What a plan needs to know of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceProfile {
    /// The limits the device was requested with.
    pub limits: wgpu::Limits,
    /// Workgroups that keep the device busy. Few tokens are spread over output slices, and parameter
    /// gradients over token splits, until about this many are in flight.
    pub busy_workgroups: u32,
    /// Loop iterations that a thread may run, over all loops of a shader together: some drivers end all loops
    /// after so many. They are counted from the shader's text, as such a driver counts them.
    pub max_loop_iterations: u64,
    /// Threads that are surely in one subgroup and may add their sums by subgroup operations: the
    /// device's least subgroup size, if it was requested with `Features::SUBGROUP`, else 1.
    pub subgroup_lanes: u32,
    /// Whether shaders run on the CPU: there lanes compute together, but access memory one after another,
    /// and a branch that a subgroup does not take costs almost as much as one that it takes.
    pub software: bool,
}

impl DeviceProfile {
    /// A device with these limits, without subgroup operations and with no bound on loops.
    #[must_use]
    pub fn new(limits: wgpu::Limits, busy_workgroups: u32) -> Self {
        Self { limits, busy_workgroups, max_loop_iterations: u64::MAX, subgroup_lanes: 1, software: false }
    }

    /// The profile of a device.
    #[must_use]
    pub fn of(device: &wgpu::Device) -> Self {
        let info = device.adapter_info();
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let busy_workgroups = match info.device_type {
            wgpu::DeviceType::Cpu => quirks::SOFTWARE_WORKGROUPS,
            wgpu::DeviceType::IntegratedGpu => 64,
            _ => 256,
        };
        let max_loop_iterations = quirks::max_loop_iterations(&info);
        // In a browser shaders would have to say that they use them.
        let subgroups =
            cfg!(not(target_arch = "wasm32")) && device.features().contains(wgpu::Features::SUBGROUP);
        let subgroup_lanes = if subgroups { info.subgroup_min_size } else { 1 };
        let profile = Self::new(device.limits(), busy_workgroups);
        Self { max_loop_iterations, subgroup_lanes, software, ..profile }
    }

    /// Lanes of a tile that may add their sums by shuffles: a power of two.
    pub(crate) fn shuffled_lanes(&self) -> u32 {
        1 << self.subgroup_lanes.max(1).ilog2()
    }

    /// Lanes of which each can hold a coefficient for all others; 1 where none can.
    pub(crate) fn broadcast_lanes(&self) -> u32 {
        self.shuffled_lanes().min(MOST_BROADCAST_LANES)
    }

    /// Whether so many coefficients can be broadcast at a time, and whether they can not.
    pub(crate) fn ways_to_coefficients(&self, coefficients: u32) -> &'static [bool] {
        if self.broadcast_lanes() > 1 && coefficients <= self.broadcast_lanes() {
            &[false, true]
        } else {
            &[false]
        }
    }

    /// No more than `device` guarantees: more would be wrong results, or fail only in the caller's submission.
    pub(crate) fn within(self, device: &Self) -> Self {
        Self {
            limits: self.limits.or_worse_values_from(&device.limits),
            max_loop_iterations: self.max_loop_iterations.min(device.max_loop_iterations),
            subgroup_lanes: self.subgroup_lanes.min(device.subgroup_lanes),
            ..self
        }
    }
}

/// Lanes that hold a coefficient each. Compilers unroll the loop over them only while it is short, and
/// only then is the lane that holds one known to them.
const MOST_BROADCAST_LANES: u32 = 8;
