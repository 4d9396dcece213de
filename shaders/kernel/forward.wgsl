// forward: y (+)= s * sum_i w_i B_i h, with h = A x and w = softmax(l), for a tile of tokens and a slice of
// the outputs, in one dispatch. A separate shrink (kernel/shrink.wgsl) may run before it. l = W_g x (input
// router) or W_g h (latent router); the files of gate/ say what else w can be. Where each expert has an A of its
// own, h is that of all of them, and B_i multiplies the i-th part.
//
// Bindings (matrices row-major):
//   0  dims        uniform (uniform/fused.wgsl)
//   1  x           tokens x d_in (source/x.wgsl); or `shrink_sums`, which a separate shrink wrote
//                  (source/sums.wgsl)
//   2  parameters  the packed adapter: shrink block, expand block, gate block
//   3  y           tokens x d_out; added to when ACCUMULATE
//   4  saved       tokens x STATE, [h, w], or h alone for one expert; training only (state/save.wgsl)
//   next  gates    rows x EXPERTS; only where weights or logits are given (gate/given.wgsl)
//   next  mask     tokens; only where some take no adapter (mask/given.wgsl)
//   group 1, 0     batch, uniform (uniform/batch.wgsl)
// Grid: x = output slices, y and z = token tiles (folded). Workgroup: QUADS * LANES threads.
// Workgroup memory: `scratch`, SCRATCH * 16 bytes (lanes' sums, then the expand's coefficients), and
// `state`, STATE * QUADS * 16 bytes.
//@ import access: load_y, parameters_element, store_y, y_element
//@ import dropout: is_dropped, kept_latent
//@ import gate: gate, weight
//@ import lanes: local_index
//@ import lanes, source/sums: scratch, shrink
//@ import mask: four_take, takes
//@ import product/expand: expand
//@ import state: save_state
//@ import uniform/batch: batch_tokens
//@ import uniform/fused: dims, expand_block, out_vecs
//@ host: ACCUMULATE, A_ROWS, MASKED, QUADS, RANK, STATE, THREAD_ARGUMENTS, THREAD_NAMES, TILE_TOKENS, WORKGROUP

@group(0) @binding(2) var<storage, read> parameters: array<parameters_element>;
@group(0) @binding(3) var<storage, read_write> y: array<y_element>;

// [h, l then w][quad], each a vec4 over four tokens. One expert has h alone.
var<workgroup> state: array<vec4<f32>, STATE * QUADS>;

fn shrunk(column: u32, quad: u32, value: vec4<f32>) {
    // Where no x is dropped, this is 1.
    let scale = select(1.0, dims.keep_scale, is_dropped(column));
    state[column * QUADS + quad] = scale * value;
}
fn absorb(first_token: u32, first: u32, count: u32, local: u32) {}

// The coefficients s * w_i * h_j of rows i * RANK + j, where h has A_ROWS rows: RANK, which all experts share, or
// one for each row of the expand.
fn expand_rows() -> u32 { return dims.experts * RANK; }
fn stage(first_token: u32, first_row: u32, count: u32, local: u32) {
    for (var item = local; item < count * QUADS; item += WORKGROUP) {
        let row = first_row + item / QUADS;
        let quad = item % QUADS;
        let h = kept_latent(first_token / 4u + quad, row, state[(row % A_ROWS) * QUADS + quad]);
        scratch[item] = dims.scaling * weight(row / RANK, quad) * h;
    }
}
fn coefficient(index: u32) -> vec4<f32> { return scratch[index]; }
fn target_vecs() -> u32 { return out_vecs(); }
fn expand_matrix() -> u32 { return expand_block(); }
fn load_target(row: u32, c: u32) -> vec4<f32> { return load_y(row, c); }
fn store_target(row: u32, c: u32, value: vec4<f32>) {
    if (takes(row)) {
        store_y(row, c, value);
    } else if (!ACCUMULATE) {
        store_y(row, c, vec4<f32>(0.0));
    }
}

// Masked tokens have no state.
fn clear_masked(first_token: u32, local: u32) {
    for (var item = local; item < STATE * QUADS; item += WORKGROUP) {
        state[item] = select(vec4<f32>(0.0), state[item], four_take(first_token + 4u * (item % QUADS)));
    }
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    THREAD_ARGUMENTS,
) {
    let local = local_index(THREAD_NAMES);
    let tile = dims.first_tile + workgroup_id.y + workgroup_id.z * num_workgroups.y;
    let first_token = tile * TILE_TOKENS;
    if (first_token >= batch_tokens()) {
        return;
    }
    shrink(first_token, batch_tokens(), local);
    gate(first_token, local);
    if (MASKED) {
        clear_masked(first_token, local);
    }
    save_state(first_token, batch_tokens(), workgroup_id.x, local);
    let first_vec = workgroup_id.x * dims.slice_vecs;
    expand(first_token, batch_tokens(), first_vec, min(first_vec + dims.slice_vecs, out_vecs()), local);
}
