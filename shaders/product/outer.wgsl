// outer: G = Z^T X for one block, over the tokens of one split. G has `rows` rows of `row_vecs` vec4 columns
// and starts at `matrix` in `gradients`. The block index runs along the columns first.
//
// Each thread owns one vec4 column and keeps ROWS_TENSOR rows of it in registers; for each token, one
// coalesced vec4 load of X feeds them all, and the loads of TOKENS_AT_ONCE tokens are in flight together, as are
// those of as many rows that are added to. Z goes through workgroup memory, which holds as many tokens as fit at a time.
//
// The kernel provides:
//   coefficients: array<vec4, WORKGROUP>   in workgroup memory, which coefficient(index) reads
//   load_TENSOR(token, column) -> vec4     X
//   factor_TENSOR(token, row) -> f32       Z
//   take(token, value) -> vec4             zero for masked tokens
// The files of dropout/ provide drops_of_TENSOR(token, column), the random words of four tokens,
// word_of_TENSOR(words, token), that of one of them, kept_TENSOR(value, word), which drops elements, and
// seen_TENSOR(row, value, kept), what a row sees.
//@ import dropout: drops_of_TENSOR, kept_TENSOR, seen_TENSOR, word_of_TENSOR
//@ import lanes: broadcast, load_own
//@ import uniform/batch: batch_tokens
//@ kernel: coefficients, dims, factor_TENSOR, gradients, load_TENSOR, take
//@ host: ACCUMULATE, BROADCAST_LANES, ROWS_TENSOR, TOKENS_AT_ONCE, TOKEN_QUADS, WORKGROUP

const ROW_QUADS_TENSOR = ROWS_TENSOR / 4u;
// A multiple of TOKENS_AT_ONCE, so that only the last tokens are fewer.
const STAGE_TOKENS_TENSOR = WORKGROUP / ROW_QUADS_TENSOR / TOKENS_AT_ONCE * TOKENS_AT_ONCE;

// Adds a token, whose coefficients start at `base`. `word` says what it drops.
fn add_token_TENSOR(
    value: vec4<f32>,
    word: u32,
    first_row: u32,
    base: u32,
    own: u32,
    sums: ptr<function, array<vec4<f32>, ROWS_TENSOR>>,
) {
    let kept = kept_TENSOR(value, word);
    let own_coefficient = load_own(base + own);
    for (var quad = 0u; quad < ROW_QUADS_TENSOR; quad++) {
        let row = first_row + 4u * quad;
        let z = broadcast(own_coefficient, quad, base + quad);
        (*sums)[4u * quad] += z.x * seen_TENSOR(row, value, kept);
        (*sums)[4u * quad + 1u] += z.y * seen_TENSOR(row + 1u, value, kept);
        (*sums)[4u * quad + 2u] += z.z * seen_TENSOR(row + 2u, value, kept);
        (*sums)[4u * quad + 3u] += z.w * seen_TENSOR(row + 3u, value, kept);
    }
}

fn outer_TENSOR(block: u32, row_vecs: u32, rows: u32, matrix: u32, split: u32, local: u32) {
    let column_blocks = (row_vecs + WORKGROUP - 1u) / WORKGROUP;
    let column = (block % column_blocks) * WORKGROUP + local;
    // Where all rows are in one block, compilers may know each row's number.
    let first_row = select((block / column_blocks) * ROWS_TENSOR, 0u, rows <= ROWS_TENSOR);
    let readable = min(column, row_vecs - 1u);
    let own = min(local % BROADCAST_LANES, ROW_QUADS_TENSOR - 1u);
    let even_tokens = (batch_tokens() + dims.splits - 1u) / dims.splits;
    // Four tokens that share random words are in one split.
    let split_tokens = select(even_tokens, (even_tokens + 3u) / 4u * 4u, TOKEN_QUADS);
    let begin = split * split_tokens;
    let end = min(begin + split_tokens, batch_tokens());
    var sums: array<vec4<f32>, ROWS_TENSOR>;
    for (var row = 0u; row < ROWS_TENSOR; row++) {
        sums[row] = vec4<f32>(0.0);
    }
    for (var first = begin; first < end; first += STAGE_TOKENS_TENSOR) {
        let count = min(STAGE_TOKENS_TENSOR, end - first);
        // [token of the stage][row / 4], each a vec4 over four rows.
        for (var item = local; item < count * ROW_QUADS_TENSOR; item += WORKGROUP) {
            let token = first + item / ROW_QUADS_TENSOR;
            let row = first_row + 4u * (item % ROW_QUADS_TENSOR);
            coefficients[item] = vec4<f32>(
                factor_TENSOR(token, row),
                factor_TENSOR(token, row + 1u),
                factor_TENSOR(token, row + 2u),
                factor_TENSOR(token, row + 3u),
            );
        }
        workgroupBarrier();
        if (TOKENS_AT_ONCE == 4u) {
            for (var four = 0u; four < count / 4u; four++) {
                let token = 4u * four;
                let value0 = take(first + token, load_TENSOR(first + token, readable));
                let value1 = take(first + token + 1u, load_TENSOR(first + token + 1u, readable));
                let value2 = take(first + token + 2u, load_TENSOR(first + token + 2u, readable));
                let value3 = take(first + token + 3u, load_TENSOR(first + token + 3u, readable));
                let drops = drops_of_TENSOR(first + token, readable);
                add_token_TENSOR(value0, drops.x, first_row, token * ROW_QUADS_TENSOR, own, &sums);
                add_token_TENSOR(value1, drops.y, first_row, (token + 1u) * ROW_QUADS_TENSOR, own, &sums);
                add_token_TENSOR(value2, drops.z, first_row, (token + 2u) * ROW_QUADS_TENSOR, own, &sums);
                add_token_TENSOR(value3, drops.w, first_row, (token + 3u) * ROW_QUADS_TENSOR, own, &sums);
            }
        }
        let rest = select(count, count % 4u, TOKENS_AT_ONCE == 4u);
        for (var at = count - rest; at < count; at++) {
            let value = take(first + at, load_TENSOR(first + at, readable));
            let drops = drops_of_TENSOR(first + at, readable);
            add_token_TENSOR(value, word_of_TENSOR(drops, first + at), first_row, at * ROW_QUADS_TENSOR, own, &sums);
        }
        workgroupBarrier();
    }
    if (column < row_vecs) {
        if (ACCUMULATE && TOKENS_AT_ONCE == 4u) {
            // All loads come before the first store, which no later load could pass.
            for (var row = 0u; row < ROWS_TENSOR; row += 4u) {
                let at = first_row + row;
                // Rows past the end repeat the last one. They are not stored.
                let before0 = gradients[matrix + min(at, rows - 1u) * row_vecs + column];
                let before1 = gradients[matrix + min(at + 1u, rows - 1u) * row_vecs + column];
                let before2 = gradients[matrix + min(at + 2u, rows - 1u) * row_vecs + column];
                let before3 = gradients[matrix + min(at + 3u, rows - 1u) * row_vecs + column];
                sums[row] = before0 + sums[row];
                sums[row + 1u] = before1 + sums[row + 1u];
                sums[row + 2u] = before2 + sums[row + 2u];
                sums[row + 3u] = before3 + sums[row + 3u];
            }
        }
        for (var row = 0u; row < ROWS_TENSOR; row++) {
            if (first_row + row < rows) {
                let at = matrix + (first_row + row) * row_vecs + column;
                if (ACCUMULATE && TOKENS_AT_ONCE == 1u) {
                    gradients[at] += sums[row];
                } else {
                    gradients[at] = sums[row];
                }
            }
        }
    }
}
