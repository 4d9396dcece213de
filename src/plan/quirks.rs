//! What is peculiar to software drivers, Mesa's llvmpipe above all: everything that a planner for GPUs alone would
//! do without.

use super::DeviceProfile;
use super::cost::{Costs, GPU};

/// Mesa's llvmpipe ends every loop of a thread after 65,535 iterations in all
/// (`LP_MAX_TGSI_LOOP_ITERATIONS`), and says nothing: results would be wrong. The rest is a margin.
const LLVMPIPE_LOOP_ITERATIONS: u64 = 60_000;

/// What keeps a software driver busy: it runs a workgroup on each core, and more slices only repeat work. Not
/// the number of cores that the process may use: plans, and with them the order of sums, must not depend on it.
pub(super) const SOFTWARE_WORKGROUPS: u32 = 4;

/// The loop iterations that the driver of an adapter lets a thread run.
pub(super) fn max_loop_iterations(info: &wgpu::AdapterInfo) -> u64 {
    if info.name.contains("llvmpipe") { LLVMPIPE_LOOP_ITERATIONS } else { u64::MAX }
}

/// Measured on llvmpipe: lanes compute together, and access memory one after another.
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
};

/// How a device differs from a GPU.
pub(super) struct Quirks {
    /// What things cost.
    pub(super) costs: &'static Costs,
    /// Rows of gradients that a thread may keep: more than 16 spill registers on some GPUs, and a CPU has none to
    /// spill.
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
