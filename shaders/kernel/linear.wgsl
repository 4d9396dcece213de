// linear: the frozen layer, as a tiled matrix product over workgroup memory, for many tokens on a GPU.
//
//   forward         y (+)= x W0^T + bias     source = x, targets = y, inner dimension d_in
//   input backward  dx (+)= g W0             source = g, targets = dx, inner dimension d_out
//
// The directions differ only in how they read a 4 x 4 block of W0 (product/linear_forward.wgsl and
// product/linear_backward.wgsl).
//
// Bindings (matrices row-major):
//   0  dims    uniform (uniform/linear.wgsl)
//   1  source  tokens x source_width
//   2  weight  W0, d_out x d_in
//   3  targets tokens x target_width; added to when ACCUMULATE (sink/target.wgsl). With several splits
//      linear_sums instead (sink/sums.wgsl)
//   4  bias    d_out; only where there is one (epilogue/bias.wgsl)
//   group 1, 0 batch, uniform (uniform/batch.wgsl)
// Grid: x = blocks of TILE_QUADS * 4 target columns for each split of the inner dimension, y and z = blocks
// of TILE_TOKENS tokens (folded). Workgroup: COLUMN_THREADS threads along the columns and the others along
// the tokens, each with THREAD_TOKENS x (4 * THREAD_QUADS) outputs.
// Workgroup memory: `source_tile` and `weight_tile`, (TILE_TOKENS + 4 * PITCH) * DEPTH * 16 bytes.
//@ import access: load_source, source_element, weight_element
//@ import product: weight_block
//@ import sink: finish, load_before
//@ import uniform/batch: batch_tokens
//@ import uniform/linear: dims, split_begin, split_end, target_vecs
//@ host: COLUMN_THREADS, DEPTH, INNER_ROWS, THREAD_QUADS, THREAD_TOKENS, TILE_QUADS, WORKGROUP

@group(0) @binding(1) var<storage, read> source: array<source_element>;
@group(0) @binding(2) var<storage, read> weight: array<weight_element>;

const_assert COLUMN_THREADS >= 8u && 8u % DEPTH == 0u;
const_assert TILE_QUADS == COLUMN_THREADS * THREAD_QUADS;

const ROW_THREADS = WORKGROUP / COLUMN_THREADS;
const TILE_TOKENS = ROW_THREADS * THREAD_TOKENS;
// A GPU's memory serves eight lanes' vec4s at a time if they lie in different eighths of 128 bytes. When
// tiles are read, eight lanes want successive quads of one row; when forward writes them, DEPTH rows of
// 8 / DEPTH quads each.
const PITCH = TILE_QUADS + 8u / DEPTH;

// [token][k], vec4s along the inner dimension.
var<workgroup> source_tile: array<vec4<f32>, TILE_TOKENS * DEPTH>;
// [element of the four at k][k][quad], vec4s along the target columns.
var<workgroup> weight_tile: array<vec4<f32>, 4u * DEPTH * PITCH>;

alias Sums = array<vec4<f32>, THREAD_TOKENS * THREAD_QUADS>;

// What sums of up to four of a thread's tokens are added to.
alias Before = array<vec4<f32>, min(THREAD_TOKENS, 4u) * THREAD_QUADS>;

// Loads what the sums of one of four tokens are added to, from the vec4 `first_c` of target columns on.
fn load_token(four: u32, row: u32, first_c: u32, before: ptr<function, Before>) {
    for (var quad = 0u; quad < THREAD_QUADS; quad++) {
        (*before)[four * THREAD_QUADS + quad] = load_before(row, first_c + COLUMN_THREADS * quad);
    }
}

// Stores its sums, which are those of the thread's token `first + four`.
fn store_token(
    first: u32,
    four: u32,
    split: u32,
    row: u32,
    first_c: u32,
    before: ptr<function, Before>,
    sums: ptr<function, Sums>,
) {
    for (var quad = 0u; quad < THREAD_QUADS; quad++) {
        let c = first_c + COLUMN_THREADS * quad;
        if (row < batch_tokens() && c < target_vecs()) {
            let sum = (*sums)[(first + four) * THREAD_QUADS + quad];
            finish(split, row, c, (*before)[four * THREAD_QUADS + quad], sum);
        }
    }
}

// Stores the sums of tokens `first` .. `first + 4` of a thread, as far as it has them. Its first token is at
// `first_row`. What they are added to is loaded before the first of them is stored.
fn store_tokens(first: u32, split: u32, first_row: u32, c: u32, sums: ptr<function, Sums>) {
    let row0 = first_row + ROW_THREADS * first;
    let row1 = row0 + ROW_THREADS;
    let row2 = row1 + ROW_THREADS;
    let row3 = row2 + ROW_THREADS;
    var before: Before;
    load_token(0u, row0, c, &before);
    if (THREAD_TOKENS > 1u) {
        load_token(1u, row1, c, &before);
    }
    if (THREAD_TOKENS > 2u) {
        load_token(2u, row2, c, &before);
        load_token(3u, row3, c, &before);
    }
    store_token(first, 0u, split, row0, c, &before, sums);
    if (THREAD_TOKENS > 1u) {
        store_token(first, 1u, split, row1, c, &before, sums);
    }
    if (THREAD_TOKENS > 2u) {
        store_token(first, 2u, split, row2, c, &before, sums);
        store_token(first, 3u, split, row3, c, &before, sums);
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tile = dims.first_tile + workgroup_id.y + workgroup_id.z * num_workgroups.y;
    let first_token = tile * TILE_TOKENS;
    if (first_token >= batch_tokens()) {
        return;
    }
    let column_blocks = (target_vecs() + TILE_QUADS - 1u) / TILE_QUADS;
    let first_quad = workgroup_id.x % column_blocks * TILE_QUADS;
    let split = workgroup_id.x / column_blocks;
    let row = local / COLUMN_THREADS;
    let column = local % COLUMN_THREADS;

    var sums: Sums;
    for (var item = 0u; item < THREAD_TOKENS * THREAD_QUADS; item++) {
        sums[item] = vec4<f32>(0.0);
    }
    let end = split_end(split);
    for (var first_k = split_begin(split); first_k < end; first_k += DEPTH) {
        for (var item = local; item < TILE_TOKENS * DEPTH; item += WORKGROUP) {
            let token = min(first_token + item / DEPTH, batch_tokens() - 1u);
            let k = first_k + item % DEPTH;
            source_tile[item] = select(vec4<f32>(0.0), load_source(token, min(k, end - 1u)), k < end);
        }
        for (var item = local; item < TILE_QUADS * DEPTH; item += WORKGROUP) {
            // Neighbouring threads read along W0's rows.
            let quad = select(item % TILE_QUADS, item / DEPTH, INNER_ROWS);
            let k = select(item / TILE_QUADS, item % DEPTH, INNER_ROWS);
            let block = weight_block(min(first_quad + quad, target_vecs() - 1u), first_k + k, end);
            let place = k * PITCH + quad;
            weight_tile[place] = block[0];
            weight_tile[place + DEPTH * PITCH] = block[1];
            weight_tile[place + 2u * DEPTH * PITCH] = block[2];
            weight_tile[place + 3u * DEPTH * PITCH] = block[3];
        }
        workgroupBarrier();
        for (var k = 0u; k < DEPTH; k++) {
            var values: array<vec4<f32>, THREAD_TOKENS>;
            for (var token = 0u; token < THREAD_TOKENS; token++) {
                values[token] = source_tile[(row + ROW_THREADS * token) * DEPTH + k];
            }
            for (var quad = 0u; quad < THREAD_QUADS; quad++) {
                let at = k * PITCH + column + COLUMN_THREADS * quad;
                let w0 = weight_tile[at];
                let w1 = weight_tile[at + DEPTH * PITCH];
                let w2 = weight_tile[at + 2u * DEPTH * PITCH];
                let w3 = weight_tile[at + 3u * DEPTH * PITCH];
                for (var token = 0u; token < THREAD_TOKENS; token++) {
                    let value = values[token];
                    // Chains of multiply-adds, which a dot product and its addition are not.
                    var sum = sums[token * THREAD_QUADS + quad];
                    sum += value.x * w0;
                    sum += value.y * w1;
                    sum += value.z * w2;
                    sum += value.w * w3;
                    sums[token * THREAD_QUADS + quad] = sum;
                }
            }
        }
        workgroupBarrier();
    }
    // Unrolled by hand: a half-precision store makes the body so long that some compilers keep the loop, and
    // then sums are no registers.
    let c = first_quad + column;
    store_tokens(0u, split, first_token + row, c, &sums);
    if (THREAD_TOKENS > 4u) {
        store_tokens(4u, split, first_token + row, c, &sums);
    }
}
