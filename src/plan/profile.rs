//! The properties of a device, for the planner.

use super::{DeviceNumbers, quirks};

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
    /// The most floating-point operations of one dispatch. More are divided among several, since operating
    /// systems end dispatches that take seconds, and draw nothing meanwhile. By default what a GPU of the
    /// device's class does in a twentieth of a second at its full rate, or the weakest class that it could be; without
    /// a bound in software. Kernels take a smaller number, but no larger one than the device's own.
    pub max_dispatch_flops: u64,
    /// Threads that are guaranteed to be in one subgroup, so that they may add their sums by subgroup
    /// operations: the device's smallest subgroup size if it was requested with `Features::SUBGROUP`, else 1.
    pub subgroup_lanes: u32,
    /// Whether shaders may multiply in 64 bits: if the device was requested with `Features::SHADER_INT64`. The random
    /// numbers of dropout, which are the same either way, then take fewer instructions.
    pub wide_products: bool,
    /// Rows and columns of the cooperative matrices of f16 with sums in f32 that shaders may use: 8, 16, or 0 for
    /// none ([`DeviceProfile::with_matrices`]).
    pub matrices: u32,
    /// What a GPU can do: measured, known, or guessed from its class. Plans on it are ranked by the time that
    /// these predict. Plans of software drivers do not depend on them.
    pub numbers: DeviceNumbers,
    /// Whether shaders run on the CPU. There, lanes compute together but access memory one after another, and
    /// a branch that a subgroup does not take costs almost as much as one that it takes.
    pub software: bool,
}

impl DeviceProfile {
    /// A device with these limits, without subgroup operations and without a bound on loop iterations. Its
    /// numbers are those of a graphics card of this width.
    #[must_use]
    pub fn new(limits: wgpu::Limits, busy_workgroups: u32) -> Self {
        let numbers = DeviceNumbers::of_width(busy_workgroups);
        Self {
            limits,
            busy_workgroups,
            max_loop_iterations: u64::MAX,
            max_dispatch_flops: numbers.dispatch_flops(),
            subgroup_lanes: 1,
            wide_products: false,
            matrices: 0,
            numbers,
            software: false,
        }
    }

    /// The same device with numbers that were measured on it, or are known of it. Plans of software drivers
    /// stay what they are.
    #[must_use]
    pub fn calibrated(self, numbers: DeviceNumbers) -> Self {
        if self.software {
            return Self { numbers, ..self };
        }
        let (busy_workgroups, max_dispatch_flops) = (numbers.busy_workgroups(), numbers.dispatch_flops());
        Self { busy_workgroups, max_dispatch_flops, numbers, ..self }
    }

    /// The profile of a device.
    #[must_use]
    pub fn of(device: &wgpu::Device) -> Self {
        Self::of_adapter(device.limits(), &device.adapter_info(), device.features())
    }

    /// The profile of a device with these limits on the adapter that `info` describes, for hosts whose device is not
    /// wgpu's; with the features that it was requested with.
    #[must_use]
    pub fn of_adapter(limits: wgpu::Limits, info: &wgpu::AdapterInfo, features: wgpu::Features) -> Self {
        let software = info.device_type == wgpu::DeviceType::Cpu;
        let max_loop_iterations = quirks::max_loop_iterations(info);
        // In a browser, shaders would have to enable subgroups in their text, and have no 64 bits.
        let has = |feature| cfg!(not(target_arch = "wasm32")) && features.contains(feature);
        let subgroup_lanes = if has(wgpu::Features::SUBGROUP) { smallest_subgroup(info) } else { 1 };
        let wide_products = has(wgpu::Features::SHADER_INT64);
        let max_dispatch_flops = u64::MAX;
        let profile = Self::new(limits, quirks::SOFTWARE_WORKGROUPS);
        let profile = Self {
            max_loop_iterations,
            max_dispatch_flops,
            subgroup_lanes,
            wide_products,
            software,
            ..profile
        }
        .calibrated(DeviceNumbers::of(info));
        if software {
            return profile;
        }
        let max_dispatch_flops =
            profile.max_dispatch_flops.min(DeviceNumbers::least_of(info).dispatch_flops());
        Self { max_dispatch_flops, ..profile }
    }

    /// The same device with the cooperative matrices of its adapter, if the device was requested with the features
    /// that they take: `EXPERIMENTAL_COOPERATIVE_MATRIX`, `SHADER_F16` and `SUBGROUP`. The frozen layer in f16 may
    /// then be planned with them. wgpu calls them experimental, so [`DeviceProfile::of`] leaves them out.
    #[must_use]
    pub fn with_matrices(self, device: &wgpu::Device, adapter: &wgpu::Adapter) -> Self {
        use wgpu::CooperativeScalarType::{F16, F32};
        let usable = device.features().contains(MATRIX_FEATURES);
        let sizes = adapter.cooperative_matrix_properties().into_iter().filter_map(|matrices| {
            let size = matrices.m_size;
            let square = [matrices.n_size, matrices.k_size] == [size; 2];
            let types = (matrices.ab_type, matrices.cr_type) == (F16, F32);
            (square && types && [8, 16].contains(&size)).then_some(size)
        });
        Self { matrices: if usable { sizes.max().unwrap_or(0) } else { 0 }, ..self }
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
            max_dispatch_flops: self.max_dispatch_flops.min(device.max_dispatch_flops),
            subgroup_lanes: self.subgroup_lanes.min(device.subgroup_lanes),
            wide_products: self.wide_products && device.wide_products,
            ..self
        }
    }
}

/// What a device has to be requested with for cooperative matrices.
const MATRIX_FEATURES: wgpu::Features = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
    .union(wgpu::Features::SHADER_F16)
    .union(wgpu::Features::SUBGROUP);

/// The least threads of a subgroup. Metal reports 4 for every GPU, since it tells only a pipeline's; on Apple's
/// own GPUs it is 32 for all of them (Metal Feature Set Tables, SIMD-group width of the Apple families).
fn smallest_subgroup(info: &wgpu::AdapterInfo) -> u32 {
    let apple = info.backend == wgpu::Backend::Metal && info.name.starts_with("Apple");
    if apple { 32 } else { info.subgroup_min_size }
}

/// The most lanes that broadcast one coefficient each. Compilers unroll the loop over them only while it is
/// short, and only then do they know which lane broadcasts.
const MOST_BROADCAST_LANES: u32 = 8;
