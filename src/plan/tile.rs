//! The sizes that are fixed when a kernel is compiled.

/// Threads in every workgroup: the widest subgroup of today's GPUs.
pub(crate) const WORKGROUP: u32 = 64;

/// Tile sizes of the fused kernels; `shaders/part/shrink.wgsl`, its two `lanes_*.wgsl` and
/// `shaders/part/expand.wgsl` say what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Tokens a workgroup handles, in groups of four.
    pub quads: u32,
    /// Lanes along the inner dimension; `quads * lanes` threads are a workgroup.
    pub lanes: u32,
    /// Columns of a shrink in a pass.
    pub pass_columns: u32,
    /// Columns whose sums are complete at a time.
    pub summed_columns: u32,
    /// Lanes that add their sums by shuffles within a subgroup; 1 where all goes through workgroup memory.
    pub shuffled_lanes: u32,
    /// vec4s of workgroup memory for the lanes' sums or the coefficients.
    pub scratch: u32,
    /// Quads of tokens a thread expands at a time.
    pub expand_quads: u32,
    /// Rows of the expand whose loads may overlap.
    pub step: u32,
    /// Rows of the expand whose coefficients are in workgroup memory at a time.
    pub staged_rows: u32,
    /// Whether that is all of them.
    pub all_staged: bool,
    /// Lanes that hold coefficients of the expand; 1 where each reads them all.
    pub broadcast_lanes: u32,
}

impl Tile {
    /// Tokens a workgroup handles.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        4 * self.quads
    }
}
