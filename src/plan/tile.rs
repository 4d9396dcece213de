//! The sizes that are fixed when a kernel is compiled.

/// Threads in a workgroup of every kernel but `gradient_norm_reduce`: the widest subgroup of today's desktop
/// GPUs.
pub(crate) const WORKGROUP: u32 = 64;

/// Tile sizes of the fused kernels. `shaders/product/shrink.wgsl`, `shaders/lanes/sums_*.wgsl` and
/// `shaders/product/expand.wgsl` show the meaning of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Tokens of a workgroup, in quads of four.
    pub quads: u32,
    /// Lanes along the inner dimension. A workgroup has `quads * lanes` threads.
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
}
