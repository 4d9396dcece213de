// linear: the frozen layer, as a tiled matrix product over workgroup memory.
//
//   forward         y (+)= x W0^T + bias     source = x, targets = y, inner dimension d_in
//   input backward  dx (+)= g W0             source = g, targets = dx, inner dimension d_out
//
// Both directions store tiles as vec4s along the inner dimension, so the inner loop is one dot product. They
// differ only in how they read a 4 x 4 block of W0 (product/linear_forward.wgsl and
// product/linear_backward.wgsl).
//
// Bindings (matrices row-major):
//   0  dims    uniform
//   1  source  tokens x source_width
//   2  weight  W0, d_out x d_in
//   3  targets tokens x target_width; added to when ACCUMULATE
//   4  bias    d_out; only where there is one (epilogue/bias.wgsl)
//   group 1, 0 batch, uniform (uniform/batch.wgsl)
// Grid: x = blocks of SIDE * THREAD_QUADS * 4 target columns, y and z = blocks of SIDE * THREAD_TOKENS
// tokens (folded). Workgroup: SIDE x SIDE threads, each with THREAD_TOKENS x (4 * THREAD_QUADS) outputs.
// Workgroup memory: `source_tile` and `weight_tile`, (SIDE * THREAD_TOKENS + 4 * SIDE * THREAD_QUADS) *
// DEPTH * 16 bytes.
//@ import access: load_source, load_targets, source_element, store_targets, targets_element, weight_element
//@ import epilogue: epilogue
//@ import product: weight_block, weight_item
//@ import uniform/batch: batch_tokens
//@ host: ACCUMULATE, DEPTH, SIDE, THREAD_QUADS, THREAD_TOKENS, WORKGROUP

struct Dims {
    source_width: u32,
    target_width: u32,
    // elements from the start of a row to the start of the next
    source_stride: u32,
    target_stride: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> source: array<source_element>;
@group(0) @binding(2) var<storage, read> weight: array<weight_element>;
@group(0) @binding(3) var<storage, read_write> targets: array<targets_element>;

const TILE_TOKENS = SIDE * THREAD_TOKENS;
const TILE_QUADS = SIDE * THREAD_QUADS;

// [token][k], vec4s along the inner dimension.
var<workgroup> source_tile: array<vec4<f32>, TILE_TOKENS * DEPTH>;
// [target column][k], vec4s along the inner dimension.
var<workgroup> weight_tile: array<vec4<f32>, 4u * TILE_QUADS * DEPTH>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let first_token = (workgroup_id.y + workgroup_id.z * num_workgroups.y) * TILE_TOKENS;
    if (first_token >= batch_tokens()) {
        return;
    }
    let first_quad = workgroup_id.x * TILE_QUADS;
    let inner_vecs = (dims.source_width + 3u) / 4u;
    let target_vecs = (dims.target_width + 3u) / 4u;
    let row = local / SIDE;
    let column = local % SIDE;

    var sums: array<vec4<f32>, THREAD_TOKENS * THREAD_QUADS>;
    for (var item = 0u; item < THREAD_TOKENS * THREAD_QUADS; item++) {
        sums[item] = vec4<f32>(0.0);
    }
    for (var first_k = 0u; first_k < inner_vecs; first_k += DEPTH) {
        for (var item = local; item < TILE_TOKENS * DEPTH; item += WORKGROUP) {
            let token = min(first_token + item / DEPTH, batch_tokens() - 1u);
            let k = first_k + item % DEPTH;
            var value = vec4<f32>(0.0);
            if (k < inner_vecs) {
                value = load_source(token, k);
            }
            source_tile[item] = value;
        }
        for (var item = local; item < TILE_QUADS * DEPTH; item += WORKGROUP) {
            let at = weight_item(item);
            let k = first_k + at.y;
            var block = mat4x4<f32>();
            if (k < inner_vecs) {
                block = weight_block(min(first_quad + at.x, target_vecs - 1u), k);
            }
            for (var n = 0u; n < 4u; n++) {
                weight_tile[(4u * at.x + n) * DEPTH + at.y] = block[n];
            }
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            var values: array<vec4<f32>, THREAD_TOKENS>;
            for (var token = 0u; token < THREAD_TOKENS; token++) {
                values[token] = source_tile[(row + SIDE * token) * DEPTH + k];
            }
            for (var quad = 0u; quad < THREAD_QUADS; quad++) {
                let first = 4u * (column + SIDE * quad) * DEPTH + k;
                let w0 = weight_tile[first];
                let w1 = weight_tile[first + DEPTH];
                let w2 = weight_tile[first + 2u * DEPTH];
                let w3 = weight_tile[first + 3u * DEPTH];
                for (var token = 0u; token < THREAD_TOKENS; token++) {
                    let value = values[token];
                    sums[token * THREAD_QUADS + quad] +=
                        vec4<f32>(dot(value, w0), dot(value, w1), dot(value, w2), dot(value, w3));
                }
            }
        }
        workgroupBarrier();
    }
    for (var token = 0u; token < THREAD_TOKENS; token++) {
        let target_row = first_token + row + SIDE * token;
        for (var quad = 0u; quad < THREAD_QUADS; quad++) {
            let c = first_quad + column + SIDE * quad;
            if (target_row < batch_tokens() && c < target_vecs) {
                let value = epilogue(target_row, c, sums[token * THREAD_QUADS + quad]);
                if (ACCUMULATE) {
                    store_targets(target_row, c, load_targets(target_row, c) + value);
                } else {
                    store_targets(target_row, c, value);
                }
            }
        }
    }
}
