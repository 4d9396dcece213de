// expand: Y += Z M for one tile of tokens, a few columns to a long row.
//
// M is a block of `parameters` with expand_rows() rows. Z are its coefficients, each a vec4 over four tokens.
// Each thread owns one vec4 of outputs and keeps 4 * EXPAND_QUADS tokens of it in registers; for each row,
// one coalesced vec4 load of M feeds them all. The coefficients lie in workgroup memory, which holds
// STAGED_ROWS rows of them at a time.
//
// Loads come before what waits for them, so that many are in flight: sums that are added to Y start with Y,
// and four rows of M are loaded before the first of them is multiplied.
//
// The caller puts a barrier between this and the last write to anything that `stage` reads or overwrites.
//
// The kernel provides:
//   expand_rows() -> u32             a multiple of STEP; not a constant, see uniform/fused.wgsl
//   stage(first_token, first_row, count, local)   computes the coefficients of these rows
//   coefficient(index) -> vec4       the coefficient of a staged row, index = row * QUADS + quad
//   target_vecs() -> u32             vec4s in a row of Y and of M
//   expand_matrix() -> u32           where M starts in `parameters`, in vec4s
//   load_target(row, c), store_target(row, c, value)
// With LATE_TARGET, a file of dropout/ drops sums after the first A_ROWS rows, and adds what is there. All rows are
// staged then.
//@ import access: vec_parameters
//@ import dropout: drop_sums
//@ import lanes: broadcast, load_own
//@ kernel: expand_matrix, expand_rows, load_target, stage, store_target, target_vecs
//@ host: ACCUMULATE, ALL_STAGED, A_ROWS, BROADCAST_LANES, EXPAND_QUADS, LATE_TARGET, QUADS, STAGED_ROWS, STEP, WORKGROUP

const_assert EXPAND_QUADS == 1u || EXPAND_QUADS == 2u || EXPAND_QUADS == 4u;
const_assert STEP <= 8u;

// The sums' type has no alias: naga would take it for a type of its own, and define the zeros of an array in
// HLSL twice where a shrink's is as long.

// Adds row `step` of a step, whose coefficients start at `base`.
fn add_row(
    m: vec4<f32>,
    step: u32,
    own_coefficient: vec4<f32>,
    base: u32,
    sums: ptr<function, array<vec4<f32>, 4u * EXPAND_QUADS>>,
) {
    for (var quad = 0u; quad < EXPAND_QUADS; quad++) {
        let z = broadcast(own_coefficient, step * EXPAND_QUADS + quad, base + step * QUADS + quad);
        (*sums)[4u * quad] += z.x * m;
        (*sums)[4u * quad + 1u] += z.y * m;
        (*sums)[4u * quad + 2u] += z.z * m;
        (*sums)[4u * quad + 3u] += z.w * m;
    }
}

// Adds rows `first` .. `first + 4` of a step, as far as it has them.
fn add_rows(
    first: u32,
    at: u32,
    row_vecs: u32,
    own_coefficient: vec4<f32>,
    base: u32,
    sums: ptr<function, array<vec4<f32>, 4u * EXPAND_QUADS>>,
) {
    let last = STEP - 1u - first;
    let m0 = vec_parameters(at + first * row_vecs);
    let m1 = vec_parameters(at + (first + min(1u, last)) * row_vecs);
    let m2 = vec_parameters(at + (first + min(2u, last)) * row_vecs);
    let m3 = vec_parameters(at + (first + min(3u, last)) * row_vecs);
    add_row(m0, first, own_coefficient, base, sums);
    if (last >= 1u) { add_row(m1, first + 1u, own_coefficient, base, sums); }
    if (last >= 2u) { add_row(m2, first + 2u, own_coefficient, base, sums); }
    if (last >= 3u) { add_row(m3, first + 3u, own_coefficient, base, sums); }
}

// Adds rows `begin` .. `end` of those staged, both multiples of STEP. `first` is where the first one staged lies.
fn add_steps(
    begin: u32,
    end: u32,
    first: u32,
    row_vecs: u32,
    first_quad: u32,
    local: u32,
    sums: ptr<function, array<vec4<f32>, 4u * EXPAND_QUADS>>,
) {
    var at = first + begin * row_vecs;
    for (var row = begin; row < end; row += STEP) {
        let base = row * QUADS + first_quad;
        let own = min(local % BROADCAST_LANES, STEP * EXPAND_QUADS - 1u);
        let own_coefficient = load_own(base + own / EXPAND_QUADS * QUADS + own % EXPAND_QUADS);
        // Unrolled by hand: some compilers would keep the loop, whose body is long.
        add_rows(0u, at, row_vecs, own_coefficient, base, sums);
        if (STEP > 4u) { add_rows(4u, at, row_vecs, own_coefficient, base, sums); }
        at += STEP * row_vecs;
    }
}

// Stores the sums of the four tokens from first_row + 4 * quad on.
fn store_quad(
    quad: u32,
    first_row: u32,
    end_token: u32,
    c: u32,
    sums: ptr<function, array<vec4<f32>, 4u * EXPAND_QUADS>>,
) {
    for (var token = 0u; token < 4u; token++) {
        let row = first_row + 4u * quad + token;
        if (row < end_token) {
            store_target(row, c, (*sums)[4u * quad + token]);
        }
    }
}

fn expand(first_token: u32, tokens: u32, first_vec: u32, end_vec: u32, local: u32) {
    let row_vecs = target_vecs();
    let matrix = expand_matrix();
    let rows = expand_rows();
    if (ALL_STAGED) {
        stage(first_token, 0u, rows, local);
        workgroupBarrier();
    }
    for (var first_quad = 0u; first_quad < QUADS; first_quad += EXPAND_QUADS) {
        for (var first_c = first_vec; first_c < end_vec; first_c += WORKGROUP) {
            let c = first_c + local;
            let target_row = first_token + 4u * first_quad;
            var sums: array<vec4<f32>, 4u * EXPAND_QUADS>;
            for (var token = 0u; token < 4u * EXPAND_QUADS; token++) {
                sums[token] = vec4<f32>(0.0);
            }
            if (ACCUMULATE && !LATE_TARGET && c < end_vec) {
                for (var token = 0u; token < 4u * EXPAND_QUADS; token++) {
                    // Tokens past the end repeat the last one. They are not stored.
                    sums[token] = load_target(min(target_row + token, tokens - 1u), c);
                }
            }
            let at = matrix + min(c, row_vecs - 1u);
            if (LATE_TARGET) {
                add_steps(0u, A_ROWS, at, row_vecs, first_quad, local, &sums);
                drop_sums(target_row, tokens, min(c, row_vecs - 1u), &sums);
                add_steps(A_ROWS, rows, at, row_vecs, first_quad, local, &sums);
            } else {
                for (var first_row = 0u; first_row < rows; first_row += STAGED_ROWS) {
                    let count = min(STAGED_ROWS, rows - first_row);
                    if (!ALL_STAGED) {
                        workgroupBarrier();
                        stage(first_token, first_row, count, local);
                        workgroupBarrier();
                    }
                    add_steps(0u, count, at + first_row * row_vecs, row_vecs, first_quad, local, &sums);
                }
            }
            // Unrolled by hand: a half-precision store makes the body so long that some compilers keep the
            // loop.
            let end_token = select(0u, tokens, c < end_vec);
            store_quad(0u, target_row, end_token, c, &sums);
            if (EXPAND_QUADS > 1u) {
                store_quad(1u, target_row, end_token, c, &sums);
            }
            if (EXPAND_QUADS > 2u) {
                store_quad(2u, target_row, end_token, c, &sums);
                store_quad(3u, target_row, end_token, c, &sums);
            }
        }
    }
}
