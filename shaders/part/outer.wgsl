// outer: G = Z^T X for one block, over the tokens of one split: `rows` x `groups` vec4 columns from
// `matrix` on in `gradients`. The block index runs along the columns first.
//
// Consts: ROWS, ROW_QUADS = ROWS / 4, STAGE_TOKENS, WORKGROUP, ACCUMULATE.
// The kernel provides load_TENSOR(token, column) for X and coefficient_TENSOR(token, row) for Z.

fn outer_TENSOR(block: u32, groups: u32, rows: u32, matrix: u32, split: u32, local: u32) {
    let column_blocks = (groups + WORKGROUP - 1u) / WORKGROUP;
    let column = (block % column_blocks) * WORKGROUP + local;
    let first_row = (block / column_blocks) * ROWS;
    let readable = min(column, groups - 1u);
    let begin = split * dims.split_tokens;
    let end = min(begin + dims.split_tokens, dims.tokens);
    var sums: array<vec4<f32>, ROWS>;
    for (var row = 0u; row < ROWS; row++) {
        sums[row] = vec4<f32>(0.0);
    }
    for (var first = begin; first < end; first += STAGE_TOKENS) {
        let count = min(STAGE_TOKENS, end - first);
        for (var item = local; item < count * ROW_QUADS; item += WORKGROUP) {
            let token = first + item / ROW_QUADS;
            let row = first_row + 4u * (item % ROW_QUADS);
            coefficients[item] = vec4<f32>(
                coefficient_TENSOR(token, row),
                coefficient_TENSOR(token, row + 1u),
                coefficient_TENSOR(token, row + 2u),
                coefficient_TENSOR(token, row + 3u),
            );
        }
        workgroupBarrier();
        for (var token = 0u; token < count; token++) {
            let value = load_TENSOR(first + token, readable);
            for (var quad = 0u; quad < ROW_QUADS; quad++) {
                let z = coefficients[token * ROW_QUADS + quad];
                sums[4u * quad] += z.x * value;
                sums[4u * quad + 1u] += z.y * value;
                sums[4u * quad + 2u] += z.z * value;
                sums[4u * quad + 3u] += z.w * value;
            }
        }
        workgroupBarrier();
    }
    if (column < groups) {
        for (var row = 0u; row < ROWS; row++) {
            if (first_row + row < rows) {
                let at = matrix + (first_row + row) * groups + column;
                if (ACCUMULATE) {
                    gradients[at] += sums[row];
                } else {
                    gradients[at] = sums[row];
                }
            }
        }
    }
}
