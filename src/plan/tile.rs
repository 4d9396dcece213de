//! The sizes that are fixed when a kernel is compiled.

use super::quirks::Quirks;
use super::{DeviceProfile, check_choice};
use crate::error::Error;

/// Threads in a workgroup, where a plan does not choose: the widest subgroup of today's desktop GPUs.
pub(crate) const WORKGROUP: u32 = 64;

/// The sizes of workgroups that a plan may choose. More threads in a workgroup share what it reads, and keep
/// more loads in flight.
const WORKGROUPS: [u32; 3] = [WORKGROUP, 2 * WORKGROUP, 4 * WORKGROUP];

/// The sizes of workgroups that may pay off on this device: at least one.
pub(super) fn ways_to_thread(device: &DeviceProfile) -> &'static [u32] {
    let possible = WORKGROUPS.iter().take_while(|&&threads| fits(threads, device)).count();
    &WORKGROUPS[..possible.clamp(1, Quirks::of(device).sizes_of_workgroups)]
}

/// Refuses a size of workgroup that is not among those to choose from, or over the device's limits.
pub(super) fn check_threads(threads: u32, device: &DeviceProfile) -> Result<(), Error> {
    let possible = WORKGROUPS.contains(&threads) && (threads == WORKGROUP || fits(threads, device));
    check_choice("threads", threads, possible)
}

fn fits(threads: u32, device: &DeviceProfile) -> bool {
    let limits = &device.limits;
    threads <= limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x)
}

/// Tile sizes of the fused kernels. `shaders/product/shrink.wgsl`, `shaders/lanes/sums_*.wgsl` and
/// `shaders/product/expand.wgsl` show the meaning of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Tokens of a workgroup, in quads of four.
    pub quads: u32,
    /// Groups of lanes that sum other columns of a shrink side by side.
    pub groups: u32,
    /// Lanes along the inner dimension. A workgroup has `groups * quads * lanes` threads.
    pub lanes: u32,
    /// Columns of a shrink that a thread sums in one pass.
    pub pass_columns: u32,
    /// Columns whose sums are complete at a time.
    pub summed_columns: u32,
    /// Lanes that add their sums by shuffles within a subgroup; 1 if all sums go through workgroup memory.
    pub shuffled_lanes: u32,
    /// vec4s of workgroup memory for the lanes' sums or the coefficients.
    pub scratch: u32,
    /// Quads of tokens that a thread expands at a time.
    pub expand_quads: u32,
    /// Rows of the expand whose loads may overlap.
    pub step: u32,
    /// Rows of the expand whose coefficients are in workgroup memory at a time.
    pub staged_rows: u32,
    /// Whether those are all rows.
    pub all_staged: bool,
    /// Lanes that broadcast one coefficient of the expand each; 1 if every lane reads all of them.
    pub broadcast_lanes: u32,
}

impl Tile {
    /// Tokens of a workgroup.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        4 * self.quads
    }

    /// Threads of a workgroup.
    #[must_use]
    pub fn threads(&self) -> u32 {
        self.groups * self.quads * self.lanes
    }
}
