// Shared by forward and backward_input: their uniform, and the places of the adapter's blocks.

struct Dims {
    d_in: u32,
    d_out: u32,
    // vec4s of a target row in one slice
    slice_vecs: u32,
    // elements from the start of a row of the source or the target to the start of the next
    source_stride: u32,
    target_stride: u32,
    // where the expand block and the gate block start in `parameters`, in vec4s
    expand_block: u32,
    gate_block: u32,
    scaling: f32,
    // EXPERTS and SHRINK_ROWS again, as runtime values. With constants, compilers would unroll the loops over
    // rows and keep every coefficient in a register.
    experts: u32,
    shrink_rows: u32,
    // the first tile of tokens of this dispatch
    first_tile: u32,
    // 1 / temperature
    logit_scale: f32,
    // tokens that share a row of `gates` or `gate_gradient`
    row_tokens: u32,
    // of dropout: 65536 * the probability, 1 / (1 - it), and what tells this layer's from those of others
    dropout_threshold: u32,
    keep_scale: f32,
    dropout_stream: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;

fn in_vecs() -> u32 { return (dims.d_in + 3u) / 4u; }
fn out_vecs() -> u32 { return (dims.d_out + 3u) / 4u; }

fn expand_block() -> u32 { return dims.expand_block; }
fn gate_block() -> u32 { return dims.gate_block; }
