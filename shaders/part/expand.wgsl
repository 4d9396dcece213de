// expand: Y += Z M for one tile of tokens, a few columns to a long row.
//
// M is a block of `parameters` with expand_rows() rows, Z its coefficients, each a vec4 over four
// tokens. Each thread owns one vec4 of outputs and keeps 4 * EXPAND_QUADS tokens of it in registers:
// per row one coalesced vec4 load of M feeds them all. Coefficients lie in workgroup memory, where
// CHUNK rows of them fit at a time.
//
// Before it comes a barrier behind everything that stage reads and what it overwrites.
//
// Consts: STEP (rows whose loads may overlap), CHUNK (a multiple of STEP), ONE_CHUNK (CHUNK holds all
// rows: then no barrier is inside the loops), QUADS, EXPAND_QUADS (1, 2 or 4; divides QUADS), WORKGROUP, ACCUMULATE;
// those of part/coefficients_*.wgsl, which gives hold and held (HOLDERS at least STEP * EXPAND_QUADS, or 1).
// The kernel provides:
//   expand_rows() -> u32             a multiple of STEP; not a constant, see part/fused.wgsl
//   stage(first_row, count, local)   makes the coefficients of these rows
//   coefficient(index) -> vec4       that of the row-th of those, index = row * QUADS + quad
//   target_groups() -> u32           vec4 groups in a row of Y and of M
//   expand_matrix() -> u32           where M starts in `parameters`, in vec4 groups
//   load_target(row, c), store_target(row, c, value)

const_assert EXPAND_QUADS == 1u || EXPAND_QUADS == 2u || EXPAND_QUADS == 4u;

// The sums of four tokens from first_row + 4 * quad on.
fn store_quad(
    quad: u32,
    first_row: u32,
    end_token: u32,
    c: u32,
    sums: ptr<function, array<vec4<f32>, 4u * EXPAND_QUADS>>,
) {
    for (var token = 0u; token < 4u; token++) {
        let row = first_row + 4u * quad + token;
        let sum = (*sums)[4u * quad + token];
        if (row < end_token) {
            if (ACCUMULATE) {
                store_target(row, c, load_target(row, c) + sum);
            } else {
                store_target(row, c, sum);
            }
        }
    }
}

fn expand(first_token: u32, tokens: u32, first_group: u32, end_group: u32, local: u32) {
    let groups = target_groups();
    let matrix = expand_matrix();
    let rows = expand_rows();
    if (ONE_CHUNK) {
        stage(0u, rows, local);
        workgroupBarrier();
    }
    for (var first_quad = 0u; first_quad < QUADS; first_quad += EXPAND_QUADS) {
        for (var first_c = first_group; first_c < end_group; first_c += WORKGROUP) {
            let c = first_c + local;
            var sums: array<vec4<f32>, 4u * EXPAND_QUADS>;
            for (var token = 0u; token < 4u * EXPAND_QUADS; token++) {
                sums[token] = vec4<f32>(0.0);
            }
            for (var first_row = 0u; first_row < rows; first_row += CHUNK) {
                let count = min(CHUNK, rows - first_row);
                if (!ONE_CHUNK) {
                    workgroupBarrier();
                    stage(first_row, count, local);
                    workgroupBarrier();
                }
                var at = matrix + first_row * groups + min(c, groups - 1u);
                for (var row = 0u; row < count; row += STEP) {
                    let base = row * QUADS + first_quad;
                    let own = min(local % HOLDERS, STEP * EXPAND_QUADS - 1u);
                    let holding = hold(base + own / EXPAND_QUADS * QUADS + own % EXPAND_QUADS);
                    for (var step = 0u; step < STEP; step++) {
                        let m = group_parameters(at);
                        at += groups;
                        for (var quad = 0u; quad < EXPAND_QUADS; quad++) {
                            let z = held(holding, step * EXPAND_QUADS + quad, base + step * QUADS + quad);
                            sums[4u * quad] += z.x * m;
                            sums[4u * quad + 1u] += z.y * m;
                            sums[4u * quad + 2u] += z.z * m;
                            sums[4u * quad + 3u] += z.w * m;
                        }
                    }
                }
            }
            // One by one: around what a half-precision store takes, some compilers would leave a loop.
            let end_token = select(0u, tokens, c < end_group);
            let target_row = first_token + 4u * first_quad;
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
