// linear_direct: the frozen layer, straight from its tensors to registers, without tiles in workgroup memory:
// for few tokens, where every weight is used once or little more, and for software drivers, whose workgroup
// memory is no faster than any other. What it computes and binds is what kernel/linear.wgsl does.
//
// A thread owns THREAD_QUADS vec4s of target columns of THREAD_TOKENS tokens. LANES threads share them and lie
// along the inner dimension: one where W0's rows run along the columns (backward), so that neighbours read
// neighbouring columns; several where they run along the inner dimension (forward), so that neighbours read
// neighbouring vec4s of a row; and one on software drivers, where neighbours need not be near each other. The
// loads of STEP vec4s of the inner dimension come first, so that they may overlap.
//
// Grid: x = blocks of TILE_QUADS * 4 target columns for each split of the inner dimension,
// y and z = blocks of THREAD_TOKENS tokens (folded). Workgroup: COLUMN_THREADS * LANES threads. Workgroup
// memory: `scratch`, SCRATCH * 16 bytes (the lanes' sums).
//@ import access: load_source, source_element, weight_element
//@ import lanes: broadcast, load_own, local_index
//@ import product: weight_block
//@ import sink: finish
//@ import uniform/batch: batch_tokens
//@ import uniform/linear: split_begin, split_end, target_vecs
//@ host: BROADCAST_LANES, COLUMN_THREADS, LANES, SCRATCH, STEP, THREAD_ARGUMENTS, THREAD_NAMES, THREAD_QUADS, THREAD_TOKENS, TILE_QUADS, WORKGROUP

@group(0) @binding(1) var<storage, read> source: array<source_element>;
@group(0) @binding(2) var<storage, read> weight: array<weight_element>;

// The source's vec4s of STEP positions along the inner dimension, a lane for each where lanes broadcast.
const HELD = (STEP * THREAD_TOKENS + BROADCAST_LANES - 1u) / BROADCAST_LANES;

// [token][quad][column][lane]: the sums of several lanes.
var<workgroup> scratch: array<vec4<f32>, SCRATCH>;

const_assert TILE_QUADS == COLUMN_THREADS * THREAD_QUADS && WORKGROUP == COLUMN_THREADS * LANES;

var<private> first_token: u32;
var<private> end_k: u32;

// index = k * THREAD_TOKENS + token: a vec4 of the source, or zeros past the split's end.
fn coefficient(index: u32) -> vec4<f32> {
    let token = min(first_token + index % THREAD_TOKENS, batch_tokens() - 1u);
    let k = index / THREAD_TOKENS;
    return select(vec4<f32>(0.0), load_source(token, min(k, end_k - 1u)), k < end_k);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    THREAD_ARGUMENTS,
) {
    first_token = (workgroup_id.y + workgroup_id.z * num_workgroups.y) * THREAD_TOKENS;
    if (first_token >= batch_tokens()) {
        return;
    }
    let local = local_index(THREAD_NAMES);
    let column_blocks = (target_vecs() + TILE_QUADS - 1u) / TILE_QUADS;
    let first_quad = workgroup_id.x % column_blocks * TILE_QUADS;
    let split = workgroup_id.x / column_blocks;
    let column = local / LANES;
    let lane = local % LANES;
    let end = split_end(split);
    end_k = end;

    var sums: array<array<vec4<f32>, THREAD_QUADS>, THREAD_TOKENS>;
    for (var token = 0u; token < THREAD_TOKENS; token++) {
        for (var quad = 0u; quad < THREAD_QUADS; quad++) {
            sums[token][quad] = vec4<f32>(0.0);
        }
    }
    for (var first_k = split_begin(split); first_k < end; first_k += STEP * LANES) {
        var held: array<vec4<f32>, HELD>;
        for (var item = 0u; item < HELD; item++) {
            held[item] = load_own(first_k * THREAD_TOKENS + item * BROADCAST_LANES + local % BROADCAST_LANES);
        }
        var weights: array<array<mat4x4<f32>, THREAD_QUADS>, STEP>;
        for (var step = 0u; step < STEP; step++) {
            let k = first_k + step * LANES + lane;
            for (var quad = 0u; quad < THREAD_QUADS; quad++) {
                let c = min(first_quad + column + COLUMN_THREADS * quad, target_vecs() - 1u);
                weights[step][quad] = weight_block(c, k, end);
            }
        }
        for (var step = 0u; step < STEP; step++) {
            let k = first_k + step * LANES + lane;
            for (var token = 0u; token < THREAD_TOKENS; token++) {
                let index = step * THREAD_TOKENS + token;
                let value = broadcast(held[index / BROADCAST_LANES], index % BROADCAST_LANES, k * THREAD_TOKENS + token);
                for (var quad = 0u; quad < THREAD_QUADS; quad++) {
                    var sum = sums[token][quad];
                    sum += value.x * weights[step][quad][0];
                    sum += value.y * weights[step][quad][1];
                    sum += value.z * weights[step][quad][2];
                    sum += value.w * weights[step][quad][3];
                    sums[token][quad] = sum;
                }
            }
        }
    }
    if (LANES == 1u) {
        for (var token = 0u; token < THREAD_TOKENS; token++) {
            for (var quad = 0u; quad < THREAD_QUADS; quad++) {
                let c = first_quad + column + COLUMN_THREADS * quad;
                if (first_token + token < batch_tokens() && c < target_vecs()) {
                    finish(split, first_token + token, c, sums[token][quad]);
                }
            }
        }
    } else {
        for (var token = 0u; token < THREAD_TOKENS; token++) {
            for (var quad = 0u; quad < THREAD_QUADS; quad++) {
                scratch[((token * THREAD_QUADS + quad) * COLUMN_THREADS + column) * LANES + lane] = sums[token][quad];
            }
        }
        workgroupBarrier();
        for (var item = local; item < THREAD_TOKENS * TILE_QUADS; item += WORKGROUP) {
            var sum = scratch[item * LANES];
            for (var other = 1u; other < LANES; other++) {
                sum += scratch[item * LANES + other];
            }
            let c = first_quad + item % TILE_QUADS;
            let target_row = first_token + item / TILE_QUADS;
            if (target_row < batch_tokens() && c < target_vecs()) {
                finish(split, target_row, c, sum);
            }
        }
    }
}
