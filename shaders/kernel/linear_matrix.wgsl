// linear_matrix: the frozen layer with cooperative matrices: products of SIZE x SIZE matrices that the threads of a
// subgroup hold together, of f16 with sums in f32. What it computes is what kernel/linear.wgsl does; the source and
// W0 are f16, and both widths are multiples of SIZE.
//
// A workgroup has 4 * SIZE tokens of 4 * SIZE target columns, in four parts of 2 x 2 matrices. Its subgroups,
// however many they are, take the parts in turn. Matrices have no edges: one that would begin too late begins
// earlier, and what belongs to others is not stored. Tokens past the batch are in the source's binding, which
// has at least SIZE rows, and reach no row but their own.
//
// Bindings (matrices row-major):
//   0  dims    uniform (uniform/linear.wgsl)
//   1  source  tokens x source_width
//   2  weight  W0, d_out x d_in
//   3  targets tokens x target_width; added to when ACCUMULATE (sink/target.wgsl). With several splits
//      linear_sums instead (sink/sums.wgsl)
//   4  bias    d_out; only where there is one (epilogue/bias.wgsl)
//   group 1, 0 batch, uniform (uniform/batch.wgsl)
// Grid: x = blocks of 4 * SIZE target columns for each split of the inner dimension, y and z = blocks of
// 4 * SIZE tokens (folded). Workgroup: WORKGROUP threads.
// Workgroup memory: `sums`, 4 * SIZE * SIZE * 4 bytes.
//@ import product: weight_matrix
//@ import sink: finish, load_before
//@ import uniform/batch: batch_tokens
//@ import uniform/linear: dims, split_begin, split_end
//@ host: SIZE, WORKGROUP

@group(0) @binding(1) var<storage, read> source: array<f16>;
@group(0) @binding(2) var<storage, read> weight: array<f16>;

alias Sums = coop_matSIZE<f32, C>;

const TILE = 4u * SIZE;
const VECS = SIZE * SIZE / 4u;

// [part][token][column]: one matrix of sums of each part.
var<workgroup> sums: array<f32, 4u * SIZE * SIZE>;

fn source_matrix(row: u32, k: u32) -> coop_matSIZE<f16, A> {
    return coopLoadT<coop_matSIZE<f16, A>>(&source[row * dims.source_stride + k], dims.source_stride);
}

// The tokens that the source's binding holds.
fn source_rows() -> u32 {
    return (arrayLength(&source) + dims.source_stride - dims.source_width) / dims.source_stride;
}

// Stores one matrix of the parts from `base` on, for all subgroups together. (i, j) is its place in a part.
fn store(base: u32, parts: u32, first_token: u32, first_column: u32, i: u32, j: u32, split: u32, local: u32) {
    workgroupBarrier();
    for (var item = local; item < parts * VECS; item += WORKGROUP) {
        let part = base + item / VECS;
        let row = first_token + (2u * (part / 2u) + i) * SIZE;
        let column = first_column + (2u * (part % 2u) + j) * SIZE;
        // Where the matrix begins, and this vec4 in it.
        let begin = min(row, source_rows() - SIZE);
        let token = begin + item % VECS / (SIZE / 4u);
        if (token >= row && token < batch_tokens() && column < dims.target_width) {
            let at = 4u * (part * VECS + item % VECS);
            let sum = vec4<f32>(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]);
            let c = column / 4u + item % (SIZE / 4u);
            finish(split, token, c, load_before(token, c), sum);
        }
    }
    workgroupBarrier();
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
) {
    let tile = dims.first_tile + workgroup_id.y + workgroup_id.z * num_workgroups.y;
    let first_token = tile * TILE;
    if (first_token >= batch_tokens()) {
        return;
    }
    let column_blocks = (dims.target_width + TILE - 1u) / TILE;
    let first_column = workgroup_id.x % column_blocks * TILE;
    let split = workgroup_id.x / column_blocks;
    let end = 4u * split_end(split);
    let last_row = source_rows() - SIZE;
    let last_column = dims.target_width - SIZE;

    // Never more than 4, but nothing else says so to the host's count of iterations.
    let rounds = min((3u + subgroups) / subgroups, 4u);
    for (var round = 0u; round < rounds; round++) {
        let base = round * subgroups;
        let part = min(base + subgroup, 3u);
        let row = first_token + 2u * SIZE * (part / 2u);
        let column = first_column + 2u * SIZE * (part % 2u);
        let row0 = min(row, last_row);
        let row1 = min(row + SIZE, last_row);
        let column0 = min(column, last_column);
        let column1 = min(column + SIZE, last_column);
        var sums00: Sums;
        var sums01: Sums;
        var sums10: Sums;
        var sums11: Sums;
        for (var k = 4u * split_begin(split); k < end; k += SIZE) {
            let x0 = source_matrix(row0, k);
            let x1 = source_matrix(row1, k);
            let w0 = weight_matrix(k, column0);
            let w1 = weight_matrix(k, column1);
            sums00 = coopMultiplyAdd(x0, w0, sums00);
            sums01 = coopMultiplyAdd(x0, w1, sums01);
            sums10 = coopMultiplyAdd(x1, w0, sums10);
            sums11 = coopMultiplyAdd(x1, w1, sums11);
        }
        let parts = min(subgroups, 4u - base);
        let own = base + subgroup < 4u;
        let at = part * SIZE * SIZE;
        if (own) { coopStoreT(sums00, &sums[at], SIZE); }
        store(base, parts, first_token, first_column, 0u, 0u, split, local);
        if (own) { coopStoreT(sums01, &sums[at], SIZE); }
        store(base, parts, first_token, first_column, 0u, 1u, split, local);
        if (own) { coopStoreT(sums10, &sums[at], SIZE); }
        store(base, parts, first_token, first_column, 1u, 0u, split, local);
        if (own) { coopStoreT(sums11, &sums[at], SIZE); }
        store(base, parts, first_token, first_column, 1u, 1u, split, local);
    }
}
