// backward_params: the gradients of every parameter, G = Z^T X summed over tokens. The work is divided into
// blocks of the packed gradient buffer and splits of the tokens. The three kinds of block share one dispatch,
// or each has a separate one.
//
//   shrink block   dA = sum_t dh x^T, input router also dW_g = sum_t dl x^T     Z = [dh, dl], X = x
//   expand block   dB_i = s * sum_t w_i g h^T, stored transposed               Z = s w_i h_j, X = g
//   gate block     latent router dW_g = sum_t dl h^T, bias db = sum_t dl       Z = dl,       X = [h, 1]
//
// A workgroup keeps some rows x WORKGROUP vec4 columns of one of the three blocks in registers and loops over
// the tokens of its split (product/outer.wgsl, once for each X; product/no_outer.wgsl for a kind of block
// that is not in this dispatch). With one split it writes the gradients, or adds to them. With several, each
// split writes its own copy of the gradients, and backward_params_reduce.wgsl adds up the copies.
//
// Bindings (matrices row-major):
//   0  dims       uniform
//   1  x          tokens x d_in
//   2  g          tokens x d_out
//   3  saved      tokens x STATE, [h, w], or h alone for one expert
//   4  dstate     tokens x STATE, [dh, dl], or dh alone for one expert
//   5  gradients  splits copies of the packed layout; added to when ACCUMULATE
//   next  mask    tokens; only where some take no adapter (mask/given.wgsl)
//   group 1, 0    batch, uniform (uniform/batch.wgsl)
// Grid: x and z = blocks (folded), y = token splits. Workgroup: WORKGROUP threads.
// Workgroup memory: `coefficients`, WORKGROUP * 16 bytes.
//@ import access: g_element, x_element
//@ import dropout: kept_latent
//@ import lanes: local_index
//@ import mask: takes
//@ import product: outer_g, outer_h, outer_x
//@ host: A_ROWS, DROPS_H, DROPS_X, EXPERTS, GATE_COLUMNS, LATENT_RANK, RANK, SHRINK_ROWS, SIGNS, STATE, THREAD_ARGUMENTS, THREAD_NAMES, WORKGROUP

struct Dims {
    d_in: u32,
    d_out: u32,
    // elements from the start of a row to the start of the next
    x_stride: u32,
    g_stride: u32,
    // splits of the tokens: all of equal length, but the last ones may be shorter, or empty in a small batch
    splits: u32,
    // workgroup indices: where the expand block starts, where the gate block starts, and the first one of
    // this dispatch and its end
    expand_start: u32,
    gate_start: u32,
    first: u32,
    end: u32,
    // where the expand block and the gate block start in the packed layout, and its length, in vec4s
    expand_block: u32,
    gate_block: u32,
    packed: u32,
    scaling: f32,
    // of dropout: 65536 * the probability, 1 / (1 - it), and what tells this layer's from those of others
    dropout_threshold: u32,
    keep_scale: f32,
    dropout_stream: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> x: array<x_element>;
@group(0) @binding(2) var<storage, read> g: array<g_element>;
@group(0) @binding(3) var<storage, read> saved: array<f32>;
@group(0) @binding(4) var<storage, read> dstate: array<f32>;
@group(0) @binding(5) var<storage, read_write> gradients: array<vec4<f32>>;

var<workgroup> coefficients: array<vec4<f32>, WORKGROUP>;

fn coefficient(index: u32) -> vec4<f32> { return coefficients[index]; }

fn in_vecs() -> u32 { return (dims.d_in + 3u) / 4u; }
fn out_vecs() -> u32 { return (dims.d_out + 3u) / 4u; }
fn gate_vecs() -> u32 { return (GATE_COLUMNS + 3u) / 4u; }

// X of the gate block: h of the latent router, then 1 for the bias, zero past the row's end.
fn gate_factor(token: u32, column: u32) -> f32 {
    if (column < LATENT_RANK) { return saved[token * STATE + column]; }
    return select(0.0, 1.0, column < GATE_COLUMNS);
}
fn load_h(token: u32, column: u32) -> vec4<f32> {
    return vec4<f32>(
        gate_factor(token, 4u * column),
        gate_factor(token, 4u * column + 1u),
        gate_factor(token, 4u * column + 2u),
        gate_factor(token, 4u * column + 3u),
    );
}

// X of a token, zero if that is masked: its numbers may be anything.
fn take(token: u32, value: vec4<f32>) -> vec4<f32> { return select(vec4<f32>(0.0), value, takes(token)); }

// Z of the three blocks. Rows past a block's end are clamped and never stored.
fn factor_x(token: u32, row: u32) -> f32 {
    let factor = dstate[token * STATE + min(row, SHRINK_ROWS - 1u)];
    return select(factor, dims.keep_scale * factor, DROPS_X && row < A_ROWS);
}
fn factor_g(token: u32, row: u32) -> f32 {
    // A masked token's h and w may be anything, too, where forward had no mask.
    if (!takes(token)) { return 0.0; }
    let inside = min(row, RANK * EXPERTS - 1u);
    var weight = 1.0;
    if (STATE > A_ROWS) {
        weight = saved[token * STATE + A_ROWS + inside / RANK];
        // An expert that was not chosen.
        if (SIGNS && weight < 0.0) { weight = 0.0; }
    }
    var h = saved[token * STATE + inside % A_ROWS];
    if (DROPS_H) { h = kept_latent(token / 4u, inside, vec4<f32>(h))[token % 4u]; }
    return dims.scaling * weight * h;
}
fn factor_h(token: u32, row: u32) -> f32 {
    return dstate[token * STATE + A_ROWS + min(row, EXPERTS - 1u)];
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    THREAD_ARGUMENTS,
) {
    let local = local_index(THREAD_NAMES);
    let block = dims.first + workgroup_id.x + workgroup_id.z * num_workgroups.x;
    if (block >= dims.end) {
        return;
    }
    let copy = workgroup_id.y * dims.packed;
    if (block < dims.expand_start) {
        outer_x(block, in_vecs(), SHRINK_ROWS, copy, workgroup_id.y, local);
    } else if (block < dims.gate_start) {
        outer_g(block - dims.expand_start, out_vecs(), RANK * EXPERTS, copy + dims.expand_block, workgroup_id.y, local);
    } else {
        outer_h(block - dims.gate_start, gate_vecs(), EXPERTS, copy + dims.gate_block, workgroup_id.y, local);
    }
}
