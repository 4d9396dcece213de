//! Peculiarities of software drivers, above all of Mesa's llvmpipe: everything that a planner only for GPUs
//! would not need.

use super::DeviceProfile;

/// Mesa's llvmpipe silently ends every loop of a thread after 65,535 iterations in all
/// (`LP_MAX_TGSI_LOOP_ITERATIONS`), and results would be wrong. The difference is a margin.
const LLVMPIPE_LOOP_ITERATIONS: u64 = 60_000;

/// Workgroups that keep a software driver busy: it runs one on each core, and more slices only repeat work.
/// This is not the number of cores that the process may use, because plans, and with them the order of sums,
/// must not depend on that.
pub(super) const SOFTWARE_WORKGROUPS: u32 = 4;

/// The loop iterations of a thread that an adapter's driver allows.
pub(super) fn max_loop_iterations(info: &wgpu::AdapterInfo) -> u64 {
    if info.name.contains("llvmpipe") { LLVMPIPE_LOOP_ITERATIONS } else { u64::MAX }
}

/// The planner's costs on software drivers, in units of a vec4 multiply-add in a thread. Only the ratios
/// between plans of one operation matter.
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

/// The number of times that `workgroups` fill the device: at least 1.
pub(super) fn filled(workgroups: f64, device: &DeviceProfile) -> f64 {
    (workgroups / f64::from(device.busy_workgroups.max(1))).max(1.0)
}

/// Measured on llvmpipe, where lanes compute together and access memory one after another.
const SOFTWARE: Costs = Costs {
    load: 18.0,
    store: 60.0,
    shared: 10.0,
    broadcast: 2.0,
    multiply_add: 1.0,
    barriers: 100.0,
    workgroup: 500.0,
    dispatch: 2000.0,
    interrupted: 2.0,
    downwards: 4.0,
};

/// The properties in which software drivers differ from GPUs.
pub(super) struct Quirks {
    /// The costs that plans are ranked by. `None` on GPUs, whose time is predicted (`cost.rs`).
    pub(super) costs: Option<&'static Costs>,
    /// The most rows of gradients that a thread keeps. More than 16 spill registers on some GPUs; on a CPU,
    /// spilling is no concern.
    pub(super) most_rows: u32,
    /// Whether a branch that a workgroup does not take costs almost as much as one that it takes.
    pub(super) runs_untaken_branches: bool,
    /// How many sizes of workgroups pay off. A software driver runs one workgroup after the other on a core,
    /// and larger ones keep nothing in flight.
    pub(super) sizes_of_workgroups: usize,
    /// The sizes of a pass over a shrink's columns that pay off, and the groups that sum columns side by side.
    pub(super) passes: &'static [[u32; 2]],
    /// Tokens whose loads `backward_params` issues together. A software driver has nothing in flight, and its
    /// loops run once more than they should.
    pub(super) tokens_at_once: u32,
    /// Coefficients of an expand that a compiler may keep in a thread's registers, if they are the same for all
    /// of its columns. NVIDIA's does so with any number of them, and with 256 spills 7 KiB.
    pub(super) kept_coefficients: u32,
}

impl Quirks {
    pub(super) fn of(device: &DeviceProfile) -> Self {
        if device.software {
            Self {
                costs: Some(&SOFTWARE),
                most_rows: 32,
                runs_untaken_branches: true,
                sizes_of_workgroups: 1,
                passes: &[[16, 1]],
                tokens_at_once: 1,
                kept_coefficients: u32::MAX,
            }
        } else {
            Self {
                costs: None,
                most_rows: 16,
                runs_untaken_branches: false,
                sizes_of_workgroups: 3,
                passes: if device.numbers.registers < 128 {
                    &[[16, 1], [8, 1], [8, 2], [4, 1], [4, 4], [2, 1], [2, 4]]
                } else {
                    &[[16, 1], [16, 2], [16, 4], [8, 1], [8, 2], [8, 4]]
                },
                tokens_at_once: 4,
                kept_coefficients: 64,
            }
        }
    }
}
