//! Peculiarities of software drivers, above all of Mesa's llvmpipe: everything that a planner only for GPUs
//! would not need.

use super::DeviceProfile;
use super::cost::{Costs, GPU};

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
    /// The cost table.
    pub(super) costs: &'static Costs,
    /// The most rows of gradients that a thread keeps. More than 16 spill registers on some GPUs; on a CPU,
    /// spilling is no concern.
    pub(super) most_rows: u32,
    /// Whether a branch that a workgroup does not take costs almost as much as one that it takes.
    pub(super) runs_untaken_branches: bool,
}

impl Quirks {
    pub(super) fn of(device: &DeviceProfile) -> Self {
        if device.software {
            Self { costs: &SOFTWARE, most_rows: 32, runs_untaken_branches: true }
        } else {
            Self { costs: &GPU, most_rows: 16, runs_untaken_branches: false }
        }
    }
}
