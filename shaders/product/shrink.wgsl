// shrink: P = X M^T for one tile of tokens, a long reduction to a few columns.
//
// X is the kernel's source (tokens x source width), M a block of `parameters` with COLUMNS rows. The
// workgroup's lanes lie along the inner dimension: thread = (group of columns, quad of tokens, lane). Each
// thread keeps 4 tokens x PASS_COLUMNS columns in registers, so that each pass over the columns reads X once,
// coalesced, 16 bytes per lane. Four columns of M are loaded before the first of them is multiplied, so that
// many loads are in flight. lanes/sums_workgroup.wgsl or lanes/sums_subgroup.wgsl adds the lanes' sums,
// always in the same order, and defines `shrink`.
//
// The kernel provides:
//   load_source(row, k) -> vec4      four elements of X
//   source_vecs() -> u32             vec4s in a row of X and of M
//   source_begin(), source_end()     the range of those vec4s that this workgroup adds up
//   shrink_matrix() -> u32           where M starts in `parameters`, in vec4s
//   shrunk(column, quad, value)      takes one column of P for four tokens (one thread each)
//   absorb(first_token, first, count, local)  called after a barrier: columns first .. first + count are complete
// The files of dropout/ provide is_dropped(column), for columns that see X with elements dropped, and
// with_drops(quad, k, x), which drops them.
//@ import access: vec_parameters
//@ import dropout: is_dropped, with_drops
//@ kernel: load_source, shrink_matrix, source_begin, source_end, source_vecs
//@ host: COLUMNS, LANES, PASS_COLUMNS

const_assert PASS_COLUMNS <= 16u;

// Four elements of a row of M. Columns of P past the end repeat the last one.
fn load_column(column: u32, row_vecs: u32, at: u32) -> vec4<f32> {
    return vec_parameters(min(column, COLUMNS - 1u) * row_vecs + at);
}

// Adds to one column of P, for four tokens, the products of four elements. x[i] holds element i of each
// token. This is one chain of multiply-adds for each token; a dot product would take an addition more.
fn add_products(sum: vec4<f32>, x: mat4x4<f32>, m: vec4<f32>) -> vec4<f32> {
    return (((sum + m.x * x[0]) + m.y * x[1]) + m.z * x[2]) + m.w * x[3];
}

// Adds the products of four elements to column `at` of a pass, which sees all of x or what is not dropped.
fn add_column(
    at: u32,
    first: u32,
    x: mat4x4<f32>,
    dropped: mat4x4<f32>,
    m: vec4<f32>,
    sums: ptr<function, array<vec4<f32>, PASS_COLUMNS>>,
) {
    if (is_dropped(first + at)) {
        (*sums)[at] = add_products((*sums)[at], dropped, m);
    } else {
        (*sums)[at] = add_products((*sums)[at], x, m);
    }
}

// Adds the products of four elements to columns `at` .. `at + 4` of a pass, as far as it has them.
fn add_columns(
    at: u32,
    first: u32,
    row_vecs: u32,
    k: u32,
    x: mat4x4<f32>,
    dropped: mat4x4<f32>,
    sums: ptr<function, array<vec4<f32>, PASS_COLUMNS>>,
) {
    let last = min(PASS_COLUMNS - 1u - at, 3u);
    let m0 = load_column(first + at, row_vecs, k);
    let m1 = load_column(first + at + min(1u, last), row_vecs, k);
    let m2 = load_column(first + at + min(2u, last), row_vecs, k);
    let m3 = load_column(first + at + last, row_vecs, k);
    add_column(at, first, x, dropped, m0, sums);
    if (last >= 1u) { add_column(at + 1u, first, x, dropped, m1, sums); }
    if (last >= 2u) { add_column(at + 2u, first, x, dropped, m2, sums); }
    if (last >= 3u) { add_column(at + 3u, first, x, dropped, m3, sums); }
}

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
        let x = transpose(mat4x4<f32>(
            load_source(row0, k),
            load_source(row1, k),
            load_source(row2, k),
            load_source(row3, k),
        ));
        let dropped = with_drops(first_token / 4u + quad, k, x);
        // Unrolled by hand: some compilers would keep the loop, and the sums in memory.
        add_columns(0u, first, row_vecs, matrix + k, x, dropped, sums);
        if (PASS_COLUMNS > 4u) { add_columns(4u, first, row_vecs, matrix + k, x, dropped, sums); }
        if (PASS_COLUMNS > 8u) { add_columns(8u, first, row_vecs, matrix + k, x, dropped, sums); }
        if (PASS_COLUMNS > 12u) { add_columns(12u, first, row_vecs, matrix + k, x, dropped, sums); }
    }
}
