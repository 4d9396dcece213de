// forward: y (+)= s * sum_i w_i B_i h, with h = A x and w = softmax(l), for a tile of tokens and a
// slice of the outputs, in one dispatch, or in one behind shrink.wgsl. l = W_g x (input router) or W_g h
// (latent router).
//
// Bindings (matrices row-major):
//   0  dims        uniform (part/fused.wgsl)
//   1  x           tokens x d_in (part/source_x.wgsl); or `shrink_sums`, what shrink.wgsl has made of it
//                  (part/source_sums.wgsl)
//   2  parameters  the packed adapter: shrink block, expand block, latent router
//   3  y           tokens x d_out; added to when ACCUMULATE
//   4  saved       tokens x STATE, [h, w], or h alone for one expert; training only (part/save_state.wgsl)
// Grid: x = output slices, y and z = token tiles (folded). Workgroup: QUADS * LANES threads.
// Workgroup memory: `scratch`, SCRATCH * 16 bytes (lanes' sums, then the expand's coefficients), and
// `state`, STATE * QUADS * 16 bytes.

@group(0) @binding(2) var<storage, read> parameters: array<parameters_element>;
@group(0) @binding(3) var<storage, read_write> y: array<y_element>;

// [h, l then w][quad], each a vec4 over four tokens; one expert has h alone.
var<workgroup> state: array<vec4<f32>, STATE * QUADS>;

// w of an expert for four tokens.
fn weight(expert: u32, quad: u32) -> vec4<f32> {
    if (EXPERTS == 1u) {
        return vec4<f32>(1.0);
    }
    return state[(RANK + expert) * QUADS + quad];
}

fn shrunk(column: u32, quad: u32, value: vec4<f32>) { state[column * QUADS + quad] = value; }
fn absorb(first: u32, count: u32, local: u32) {}

// The coefficients s * w_i * h_j of rows i * RANK + j.
fn expand_rows() -> u32 { return dims.experts * RANK; }
fn stage(first_row: u32, count: u32, local: u32) {
    for (var item = local; item < count * QUADS; item += WORKGROUP) {
        let row = first_row + item / QUADS;
        let quad = item % QUADS;
        scratch[item] = dims.scaling * weight(row / RANK, quad) * state[(row % RANK) * QUADS + quad];
    }
}
fn coefficient(index: u32) -> vec4<f32> { return scratch[index]; }
fn target_groups() -> u32 { return out_groups(); }
fn expand_matrix() -> u32 { return expand_block(); }
fn load_target(row: u32, c: u32) -> vec4<f32> { return load_y(row, c); }
fn store_target(row: u32, c: u32, value: vec4<f32>) { store_y(row, c, value); }

// l -> w in place, for four tokens at once. The maximum is taken out first: logits of any size.
fn softmax(quad: u32) {
    var largest = state[RANK * QUADS + quad];
    for (var expert = 1u; expert < EXPERTS; expert++) {
        largest = max(largest, state[(RANK + expert) * QUADS + quad]);
    }
    var total = vec4<f32>(0.0);
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let exponential = exp(state[(RANK + expert) * QUADS + quad] - largest);
        state[(RANK + expert) * QUADS + quad] = exponential;
        total += exponential;
    }
    for (var expert = 0u; expert < EXPERTS; expert++) {
        state[(RANK + expert) * QUADS + quad] = state[(RANK + expert) * QUADS + quad] / total;
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    THREAD_ARGUMENTS,
) {
    let local = local_index(THREAD_NAMES);
    let tile = group.y + group.z * grid.y;
    let first_token = tile * TILE_TOKENS;
    if (first_token >= batch.tokens) {
        return;
    }
    shrink(first_token, batch.tokens, local);
    if (EXPERTS > 1u) {
        route(local);
        if (local < QUADS) {
            softmax(local);
        }
        workgroupBarrier();
    }
    save_state(first_token, batch.tokens, group.x, local);
    let first_group = group.x * dims.slice_groups;
    expand(first_token, batch.tokens, first_group, min(first_group + dims.slice_groups, out_groups()), local);
}
