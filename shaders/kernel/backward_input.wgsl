// backward_input: from g = dL/dy to dx and the per-token [dh, dl], for a tile of tokens and a slice of the
// inputs, in one dispatch. A separate shrink (kernel/shrink.wgsl) may run before it.
//
//   v_i  = s * B_i^T g
//   dw_i = v_i . h                  dl = w * (dw - sum_i w_i dw_i)
//   dh   = sum_i w_i v_i            (+ W_g^T dl for the latent router)
//   dx (+)= A^T dh                  (+ W_g^T dl for the input router)
//
// absorb consumes a few columns of v at a time, so memory does not grow with RANK * EXPERTS.
//
// Bindings (matrices row-major):
//   0  dims        uniform (uniform/fused.wgsl)
//   1  g           tokens x d_out (source/g.wgsl); or `shrink_sums`, which a separate shrink wrote
//                  (source/sums.wgsl)
//   2  parameters  the packed adapter: shrink block, expand block, gate block
//   3  saved       tokens x STATE, [h, w] as forward saved them; h alone for one expert
//   4  dstate      tokens x STATE, [dh, dl], or dh alone for one expert; written
//   5  x_gradient  dx, tokens x d_in; added to when ACCUMULATE; only where dx is wanted
//                  (product/input_gradient.wgsl)
//   next  gate_gradient  rows x EXPERTS, with Z_LOSS one row and a number; only where the caller adds one
//                  (gate/add_gradient.wgsl)
//   next  mask     tokens; only where some take no adapter (mask/given.wgsl)
//   group 1, 0     batch, uniform (uniform/batch.wgsl)
// Grid: x = input slices, y and z = token tiles (folded). Workgroup: QUADS * LANES threads.
// Workgroup memory: `scratch`, SCRATCH * 16 bytes (the lanes' sums), `state` and `dstate_tile`
// (STATE * QUADS * 16 bytes each), `v` (SUMMED_COLUMNS * QUADS * 16 bytes).
//@ import access: parameters_element
//@ import dropout: kept_latent
//@ import gate: gate_backward, weight
//@ import lanes: local_index
//@ import lanes, source/sums: shrink
//@ import mask: four_take
//@ import product: input_gradient
//@ import uniform/batch: batch_tokens
//@ import uniform/fused: dims
//@ host: A_ROWS, DROPS_H, EXPERTS, MASKED, QUADS, RANK, STATE, SUMMED_COLUMNS, THREAD_ARGUMENTS, THREAD_NAMES, TILE_TOKENS, WORKGROUP

@group(0) @binding(2) var<storage, read> parameters: array<parameters_element>;
@group(0) @binding(3) var<storage, read> saved: array<f32>;
@group(0) @binding(4) var<storage, read_write> dstate: array<f32>;

// [h, w][quad], each a vec4 over four tokens. One expert has h alone, and in dstate_tile dh alone.
var<workgroup> state: array<vec4<f32>, STATE * QUADS>;
// [dh, dw then dl][quad].
var<workgroup> dstate_tile: array<vec4<f32>, STATE * QUADS>;
// The columns of v that are absorbed together: [column][quad].
var<workgroup> v: array<vec4<f32>, SUMMED_COLUMNS * QUADS>;

fn shrunk(column: u32, quad: u32, value: vec4<f32>) {
    v[(column % SUMMED_COLUMNS) * QUADS + quad] = dims.scaling * value;
}

// Adds the contribution of columns first .. first + count of v to dh and dw; v_i[j] is column i * RANK + j.
// Each thread owns one entry of [dh, dw] for four tokens. The caller puts a barrier between this and the next
// write to v.
fn absorb(first_token: u32, first: u32, count: u32, local: u32) {
    let end = first + count;
    if (DROPS_H) {
        for (var item = local; item < count * QUADS; item += WORKGROUP) {
            v[item] = kept_latent(first_token / 4u + item % QUADS, first + item / QUADS, v[item]);
        }
        workgroupBarrier();
    }
    // dh_j: the columns congruent to j; where each expert has an A of its own, column j
    for (var item = local; item < A_ROWS * QUADS; item += WORKGROUP) {
        let row = item / QUADS;
        let quad = item % QUADS;
        var sum = dstate_tile[item];
        for (var column = first + (row + A_ROWS - first % A_ROWS) % A_ROWS; column < end; column += A_ROWS) {
            sum += weight(column / RANK, quad) * v[(column - first) * QUADS + quad];
        }
        dstate_tile[item] = sum;
    }
    if (STATE == A_ROWS) {
        return;
    }
    // dw_i: the columns of expert i
    for (var item = local; item < EXPERTS * QUADS; item += WORKGROUP) {
        let expert = item / QUADS;
        let quad = item % QUADS;
        var sum = dstate_tile[A_ROWS * QUADS + item];
        let stop = min(end, (expert + 1u) * RANK);
        for (var column = max(first, expert * RANK); column < stop; column++) {
            sum += state[(column % A_ROWS) * QUADS + quad] * v[(column - first) * QUADS + quad];
        }
        dstate_tile[A_ROWS * QUADS + item] = sum;
    }
}

fn load_state(first_token: u32, local: u32) {
    for (var item = local; item < STATE * QUADS; item += WORKGROUP) {
        let column = item / QUADS;
        let token = first_token + 4u * (item % QUADS);
        let last = batch_tokens() - 1u;
        state[item] = vec4<f32>(
            saved[min(token, last) * STATE + column],
            saved[min(token + 1u, last) * STATE + column],
            saved[min(token + 2u, last) * STATE + column],
            saved[min(token + 3u, last) * STATE + column],
        );
        dstate_tile[item] = vec4<f32>(0.0);
    }
}

// Masked tokens have no gradient.
fn clear_masked(first_token: u32, local: u32) {
    for (var item = local; item < STATE * QUADS; item += WORKGROUP) {
        let takes = four_take(first_token + 4u * (item % QUADS));
        dstate_tile[item] = select(vec4<f32>(0.0), dstate_tile[item], takes);
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
    // shrink has a barrier before the first read of what load_state wrote.
    load_state(first_token, local);
    shrink(first_token, batch_tokens(), local);
    workgroupBarrier();
    gate_backward(first_token, local);
    if (MASKED) {
        clear_masked(first_token, local);
    }
    if (workgroup_id.x == 0u) {
        for (var item = local; item < TILE_TOKENS * STATE; item += WORKGROUP) {
            let token = item / STATE;
            let column = item % STATE;
            if (first_token + token < batch_tokens()) {
                dstate[(first_token + token) * STATE + column] =
                    dstate_tile[column * QUADS + token / 4u][token % 4u];
            }
        }
    }
    input_gradient(first_token, workgroup_id.x, local);
}
