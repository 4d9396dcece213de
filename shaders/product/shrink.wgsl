// shrink: P = X M^T for one tile of tokens, a long reduction to a few columns.
//
// X is the kernel's source (tokens x source width), M a block of `parameters` with COLUMNS rows. The
// workgroup's lanes lie along the inner dimension: thread = (quad of tokens, lane). Each thread keeps 4
// tokens x PASS_COLUMNS columns in registers, so that each pass over the columns reads X once, coalesced, 16
// bytes per lane. lanes/sums_workgroup.wgsl or lanes/sums_subgroup.wgsl adds the lanes' sums, always in the
// same order, and defines `shrink`.
//
// The kernel provides:
//   load_source(row, k) -> vec4      four elements of X
//   source_vecs() -> u32             vec4s in a row of X and of M
//   source_begin(), source_end()     the range of those vec4s that this workgroup adds up
//   shrink_matrix() -> u32           where M starts in `parameters`, in vec4s
//   shrunk(column, quad, value)      takes one column of P for four tokens (one thread each)
//   absorb(first, count, local)      called after a barrier: columns first .. first + count are complete
//@ import access: vec_parameters
//@ kernel: load_source, shrink_matrix, source_begin, source_end, source_vecs
//@ host: COLUMNS, LANES, PASS_COLUMNS

// This lane's sums of the PASS_COLUMNS columns from `first` on.
fn lane_sums(
    first: u32,
    first_token: u32,
    tokens: u32,
    quad: u32,
    lane: u32,
    sums: ptr<function, array<vec4<f32>, PASS_COLUMNS>>,
) {
    let row_vecs = source_vecs();
    let matrix = shrink_matrix();
    // Tokens past the end repeat the last one. Their results never reach a tensor.
    let row0 = min(first_token + 4u * quad, tokens - 1u);
    let row1 = min(first_token + 4u * quad + 1u, tokens - 1u);
    let row2 = min(first_token + 4u * quad + 2u, tokens - 1u);
    let row3 = min(first_token + 4u * quad + 3u, tokens - 1u);
    for (var column = 0u; column < PASS_COLUMNS; column++) {
        (*sums)[column] = vec4<f32>(0.0);
    }
    let end = source_end();
    for (var k = source_begin() + lane; k < end; k += LANES) {
        let x0 = load_source(row0, k);
        let x1 = load_source(row1, k);
        let x2 = load_source(row2, k);
        let x3 = load_source(row3, k);
        for (var column = 0u; column < PASS_COLUMNS; column++) {
            let m = vec_parameters(matrix + min(first + column, COLUMNS - 1u) * row_vecs + k);
            (*sums)[column] += vec4<f32>(dot(x0, m), dot(x1, m), dot(x2, m), dot(x3, m));
        }
    }
}
