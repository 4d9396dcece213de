// What forward and backward_input share: their uniform, and where the adapter's blocks lie.

struct Dims {
    d_in: u32,
    d_out: u32,
    // vec4 groups of the target's row in a slice
    slice_groups: u32,
    // elements from the start of a row of the source or the target to the start of the next
    source_stride: u32,
    target_stride: u32,
    scaling: f32,
    // EXPERTS and SHRINK_ROWS, as bounds that compilers do not unroll over: the coefficients of all rows
    // would stay in registers.
    experts: u32,
    shrink_rows: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;

fn in_groups() -> u32 { return (dims.d_in + 3u) / 4u; }
fn out_groups() -> u32 { return (dims.d_out + 3u) / 4u; }

// Where the blocks after the shrink block start in `parameters`, in vec4 groups.
fn expand_block() -> u32 { return SHRINK_ROWS * in_groups(); }
fn latent_block() -> u32 { return expand_block() + RANK * EXPERTS * out_groups(); }
