// What forward and backward_input share: their uniform, and where the adapter's blocks lie.

struct Dims {
    d_in: u32,
    d_out: u32,
    // vec4s of the target's row in a slice
    slice_vecs: u32,
    // elements from the start of a row of the source or the target to the start of the next
    source_stride: u32,
    target_stride: u32,
    // where the blocks behind the shrink block start in `parameters`, in vec4s
    expand_block: u32,
    latent_block: u32,
    scaling: f32,
    // EXPERTS and SHRINK_ROWS, as bounds that compilers do not unroll over: the coefficients of all rows
    // would stay in registers.
    experts: u32,
    shrink_rows: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;

fn in_vecs() -> u32 { return (dims.d_in + 3u) / 4u; }
fn out_vecs() -> u32 { return (dims.d_out + 3u) / 4u; }

fn expand_block() -> u32 { return dims.expand_block; }
fn latent_block() -> u32 { return dims.latent_block; }
