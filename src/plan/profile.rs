//! The properties of a device, for the planner.

use super::quirks;

/// The properties of a device that plans depend on.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceProfile {
    /// The limits the device was requested with.
    pub limits: wgpu::Limits,
    /// Workgroups that keep the device busy. Few tokens are spread over output slices, and parameter
    /// gradients over token splits, until about this many workgroups are in flight.
    pub busy_workgroups: u32,
    /// The most loop iterations of a thread, over all loops of a shader together: some drivers end all loops
    /// after this many. They are counted from the shader's text, in the way of such a driver.
    pub max_loop_iterations: u64,
    /// Threads that are guaranteed to be in one subgroup, so that they may add their sums by subgroup
    /// operations: the device's smallest subgroup size if it was requested with `Features::SUBGROUP`, else 1.
    pub subgroup_lanes: u32,
    /// Whether shaders run on the CPU. There, lanes compute together but access memory one after another, and
    /// a branch that a subgroup does not take costs almost as much as one that it takes.
    pub software: bool,
}

impl DeviceProfile {
    /// A device with these limits, without subgroup operations and without a bound on loop iterations.
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
        // In a browser, shaders would have to enable subgroups in their text.
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

    /// Lanes that can broadcast one coefficient each; 1 if no lane can.
    pub(crate) fn broadcast_lanes(&self) -> u32 {
        self.shuffled_lanes().min(MOST_BROADCAST_LANES)
    }

    /// The possible values of `broadcast` when this many coefficients are needed at once.
    pub(crate) fn ways_to_coefficients(&self, coefficients: u32) -> &'static [bool] {
        if self.broadcast_lanes() > 1 && coefficients <= self.broadcast_lanes() {
            &[false, true]
        } else {
            &[false]
        }
    }

    /// Reduces the profile to the guarantees of `device`. Exceeding them would give wrong results, or fail
    /// only in the caller's submission.
    pub(crate) fn within(self, device: &Self) -> Self {
        Self {
            limits: self.limits.or_worse_values_from(&device.limits),
            max_loop_iterations: self.max_loop_iterations.min(device.max_loop_iterations),
            subgroup_lanes: self.subgroup_lanes.min(device.subgroup_lanes),
            ..self
        }
    }
}

/// The most lanes that broadcast one coefficient each. Compilers unroll the loop over them only while it is
/// short, and only then do they know which lane broadcasts.
const MOST_BROADCAST_LANES: u32 = 8;
