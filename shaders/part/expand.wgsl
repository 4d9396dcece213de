// expand: Y += Z M for one tile of tokens, a few columns to a long row.
//
// M is a block of `parameters` with outer_rows() * INNER rows; the coefficient of its row
// outer * INNER + inner is outer_factor(outer) * inner_factor(inner), each a vec4 over four tokens.
// Each thread owns one vec4 of outputs and keeps 4 * EXPAND_QUADS tokens of it in registers: per
// row one coalesced vec4 load of M feeds them all.
//
// Consts: INNER, QUADS, EXPAND_QUADS (divides QUADS), WORKGROUP, ACCUMULATE.
// The kernel provides:
//   outer_rows() -> u32
//   outer_factor(outer, quad), inner_factor(inner, quad) -> vec4
//   target_groups() -> u32           vec4 groups in a row of Y and of M
//   expand_matrix() -> u32           where M starts in `parameters`, in vec4 groups
//   load_target(row, c), store_target(row, c, value)

fn expand(first_token: u32, tokens: u32, first_group: u32, end_group: u32, local: u32) {
    let groups = target_groups();
    let matrix = expand_matrix();
    // Not a constant: unrolled over experts, the inner factors of all rows would stay in registers.
    let rows_outside = outer_rows();
    for (var first_quad = 0u; first_quad < QUADS; first_quad += EXPAND_QUADS) {
        for (var c = first_group + local; c < end_group; c += WORKGROUP) {
            var sums: array<vec4<f32>, 4u * EXPAND_QUADS>;
            for (var token = 0u; token < 4u * EXPAND_QUADS; token++) {
                sums[token] = vec4<f32>(0.0);
            }
            var at = matrix + c;
            for (var outer = 0u; outer < rows_outside; outer++) {
                for (var inner = 0u; inner < INNER; inner++) {
                    let m = group_parameters(at);
                    at += groups;
                    for (var quad = 0u; quad < EXPAND_QUADS; quad++) {
                        let z = outer_factor(outer, first_quad + quad)
                            * inner_factor(inner, first_quad + quad);
                        sums[4u * quad] += z.x * m;
                        sums[4u * quad + 1u] += z.y * m;
                        sums[4u * quad + 2u] += z.z * m;
                        sums[4u * quad + 3u] += z.w * m;
                    }
                }
            }
            for (var token = 0u; token < 4u * EXPAND_QUADS; token++) {
                let row = first_token + 4u * first_quad + token;
                if (row < tokens) {
                    if (ACCUMULATE) {
                        store_target(row, c, load_target(row, c) + sums[token]);
                    } else {
                        store_target(row, c, sums[token]);
                    }
                }
            }
        }
    }
}
