// linear_direct: the frozen layer, straight from its tensors to registers, without tiles in workgroup memory:
// for few tokens, where every weight is used once or little more, and for software drivers, whose workgroup
// memory is no faster than any other. What it computes and binds is what kernel/linear.wgsl does.
//
// A thread owns THREAD_QUADS vec4s of target columns of THREAD_TOKENS tokens. LANES threads share them and lie
// along the inner dimension: one where W0's rows run along the columns (backward), so that neighbours read
// neighbouring columns; several where they run along the inner dimension (forward), so that neighbours read
// neighbouring vec4s of a row; and one on software drivers, where neighbours need not be near each other. The
// loads of STEP vec4s of the inner dimension come first, so that they may overlap; STEP is 1 if THREAD_TOKENS is
// more than GROUP. Neighbours' columns lie side by side, also where a thread has two vec4s of them: software
// drivers then read twice as much of each row, and wait half as often.
//
// Grid: x = blocks of TILE_QUADS * 4 target columns for each split of the inner dimension,
// y and z = blocks of THREAD_TOKENS tokens (folded). Workgroup: COLUMN_THREADS * LANES threads. Workgroup
// memory: `scratch`, SCRATCH * 16 bytes (the lanes' sums).
//@ import access: load_source, source_element, weight_element
//@ import lanes: broadcast, load_own, local_index
//@ import product: weight_block
//@ import sink: finish, load_before
//@ import uniform/batch: batch_tokens
//@ import uniform/linear: dims, split_begin, split_end, target_vecs
//@ host: BROADCAST_LANES, COLUMN_THREADS, LANES, SCRATCH, STEP, THREAD_ARGUMENTS, THREAD_NAMES, THREAD_QUADS, THREAD_TOKENS, TILE_QUADS, WORKGROUP

@group(0) @binding(1) var<storage, read> source: array<source_element>;
@group(0) @binding(2) var<storage, read> weight: array<weight_element>;

// Sums are in arrays for GROUP tokens each: compilers unroll loops over no more, and only then are sums
// registers.
const GROUP = min(THREAD_TOKENS, 8u);
// vec4s of the source that a lane holds for the others.
const HELD = (STEP * GROUP + BROADCAST_LANES - 1u) / BROADCAST_LANES;

alias Weights = array<array<mat4x4<f32>, THREAD_QUADS>, STEP>;
alias Sums = array<array<vec4<f32>, THREAD_QUADS>, GROUP>;

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

// Loads a block of W0 for the vec4 `c + quad` of target columns.
fn load_weights(step: u32, quad: u32, c: u32, k: u32, end: u32, weights: ptr<function, Weights>) {
    (*weights)[step][quad] = weight_block(min(c + quad, target_vecs() - 1u), k, end);
}

// Adds the products with GROUP tokens of the source, which begin at `index` of coefficient().
fn multiply(index: u32, local: u32, weights: Weights, sums: ptr<function, Sums>) {
    var held: array<vec4<f32>, HELD>;
    for (var item = 0u; item < HELD; item++) {
        held[item] = load_own(index + item * BROADCAST_LANES + local % BROADCAST_LANES);
    }
    for (var step = 0u; step < STEP; step++) {
        for (var token = 0u; token < GROUP; token++) {
            let own = step * GROUP + token;
            let value = broadcast(
                held[own / BROADCAST_LANES],
                own % BROADCAST_LANES,
                index + step * LANES * THREAD_TOKENS + token,
            );
            for (var quad = 0u; quad < THREAD_QUADS; quad++) {
                var sum = (*sums)[token][quad];
                sum += value.x * weights[step][quad][0];
                sum += value.y * weights[step][quad][1];
                sum += value.z * weights[step][quad][2];
                sum += value.w * weights[step][quad][3];
                (*sums)[token][quad] = sum;
            }
        }
    }
}

// What sums of up to four tokens are added to.
alias Before = array<vec4<f32>, min(GROUP, 4u) * THREAD_QUADS>;

// Loads what the sums of one of four tokens are added to, from the vec4 `c` of target columns on.
fn load_token(four: u32, row: u32, c: u32, before: ptr<function, Before>) {
    for (var quad = 0u; quad < THREAD_QUADS; quad++) {
        (*before)[four * THREAD_QUADS + quad] = load_before(row, c + quad);
    }
}

// Stores its sums, which are those of token `first + four` of a group.
fn store_token(
    first: u32,
    four: u32,
    split: u32,
    row: u32,
    c: u32,
    before: ptr<function, Before>,
    sums: ptr<function, Sums>,
) {
    for (var quad = 0u; quad < THREAD_QUADS; quad++) {
        if (row < batch_tokens() && c + quad < target_vecs()) {
            finish(split, row, c + quad, (*before)[four * THREAD_QUADS + quad], (*sums)[first + four][quad]);
        }
    }
}

// Stores the sums of tokens `first` .. `first + 4` of a group, as far as it has them, of which the first is at
// `row`. What they are added to is loaded before the first of them is stored.
fn store_tokens(first: u32, split: u32, row: u32, c: u32, sums: ptr<function, Sums>) {
    var before: Before;
    load_token(0u, row, c, &before);
    if (GROUP > 1u) {
        load_token(1u, row + 1u, c, &before);
    }
    if (GROUP > 2u) {
        load_token(2u, row + 2u, c, &before);
        load_token(3u, row + 3u, c, &before);
    }
    store_token(first, 0u, split, row, c, &before, sums);
    if (GROUP > 1u) {
        store_token(first, 1u, split, row + 1u, c, &before, sums);
    }
    if (GROUP > 2u) {
        store_token(first, 2u, split, row + 2u, c, &before, sums);
        store_token(first, 3u, split, row + 3u, c, &before, sums);
    }
}

// Stores the sums of GROUP tokens from `token_begin` of the tile on.
fn store(token_begin: u32, split: u32, first_quad: u32, local: u32, sums: ptr<function, Sums>) {
    let column = local / LANES;
    let lane = local % LANES;
    let first_row = first_token + token_begin;
    if (LANES == 1u) {
        // Unrolled by hand: a half-precision store makes the body so long that some compilers keep the loop,
        // and then sums are no registers.
        let c = first_quad + column * THREAD_QUADS;
        store_tokens(0u, split, first_row, c, sums);
        if (GROUP > 4u) {
            store_tokens(4u, split, first_row + 4u, c, sums);
        }
    } else {
        workgroupBarrier();
        for (var token = 0u; token < GROUP; token++) {
            for (var quad = 0u; quad < THREAD_QUADS; quad++) {
                scratch[((token * COLUMN_THREADS + column) * THREAD_QUADS + quad) * LANES + lane] = (*sums)[token][quad];
            }
        }
        workgroupBarrier();
        for (var item = local; item < GROUP * TILE_QUADS; item += WORKGROUP) {
            var sum = scratch[item * LANES];
            for (var other = 1u; other < LANES; other++) {
                sum += scratch[item * LANES + other];
            }
            let c = first_quad + item % TILE_QUADS;
            let row = first_row + item / TILE_QUADS;
            if (row < batch_tokens() && c < target_vecs()) {
                finish(split, row, c, load_before(row, c), sum);
            }
        }
    }
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    THREAD_ARGUMENTS,
) {
    // Tested before it is in a private variable, which browsers take to differ between threads.
    let tile = dims.first_tile + workgroup_id.y + workgroup_id.z * num_workgroups.y;
    let tile_token = tile * THREAD_TOKENS;
    if (tile_token >= batch_tokens()) {
        return;
    }
    first_token = tile_token;
    let local = local_index(THREAD_NAMES);
    let column_blocks = (target_vecs() + TILE_QUADS - 1u) / TILE_QUADS;
    let first_quad = workgroup_id.x % column_blocks * TILE_QUADS;
    let split = workgroup_id.x / column_blocks;
    let column = local / LANES;
    let lane = local % LANES;
    // Threads past the last column have nothing to add up, but other lanes may want what they hold.
    let inside = first_quad + column / BROADCAST_LANES * BROADCAST_LANES * THREAD_QUADS < target_vecs();
    let end = select(split_begin(split), split_end(split), inside);
    end_k = split_end(split);

    var sums0: Sums;
    var sums1: Sums;
    var sums2: Sums;
    var sums3: Sums;
    for (var first_k = split_begin(split); first_k < end; first_k += STEP * LANES) {
        var weights: Weights;
        for (var step = 0u; step < STEP; step++) {
            let c = first_quad + column * THREAD_QUADS;
            let k = first_k + step * LANES + lane;
            // Not a loop, as in store().
            load_weights(step, 0u, c, k, end, &weights);
            if (THREAD_QUADS > 1u) {
                load_weights(step, 1u, c, k, end, &weights);
            }
        }
        let index = (first_k + lane) * THREAD_TOKENS;
        multiply(index, local, weights, &sums0);
        if (THREAD_TOKENS > 8u) {
            multiply(index + 8u, local, weights, &sums1);
        }
        if (THREAD_TOKENS > 16u) {
            multiply(index + 16u, local, weights, &sums2);
            multiply(index + 24u, local, weights, &sums3);
        }
    }
    store(0u, split, first_quad, local, &sums0);
    if (THREAD_TOKENS > 8u) {
        store(8u, split, first_quad, local, &sums1);
    }
    if (THREAD_TOKENS > 16u) {
        store(16u, split, first_quad, local, &sums2);
        store(24u, split, first_quad, local, &sums3);
    }
}
