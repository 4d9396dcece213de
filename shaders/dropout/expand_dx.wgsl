// Dropout of x in backward: what comes through A reaches dx where x was not dropped. Its sums are complete
// before those of the router, and before what is added to.
//@ import dropout/words: drop_words, elements_drop
//@ import uniform/fused: dims
//@ kernel: load_target
//@ host: ACCUMULATE, EXPAND_QUADS

// The sums of one token, `row`.
fn drop_sum(sum: vec4<f32>, word: u32, row: u32, tokens: u32, c: u32) -> vec4<f32> {
    let kept = select(dims.keep_scale * sum, vec4<f32>(0.0), elements_drop(word));
    // Tokens past the end repeat the last one. They are not stored.
    if (ACCUMULATE) { return load_target(min(row, tokens - 1u), c) + kept; }
    return kept;
}

// The sums of the four tokens from first_row + 4 * quad on.
fn drop_quad(
    quad: u32,
    first_row: u32,
    tokens: u32,
    c: u32,
    sums: ptr<function, array<vec4<f32>, 4u * EXPAND_QUADS>>,
) {
    let row = first_row + 4u * quad;
    let words = drop_words(row / 4u, c);
    (*sums)[4u * quad] = drop_sum((*sums)[4u * quad], words.x, row, tokens, c);
    (*sums)[4u * quad + 1u] = drop_sum((*sums)[4u * quad + 1u], words.y, row + 1u, tokens, c);
    (*sums)[4u * quad + 2u] = drop_sum((*sums)[4u * quad + 2u], words.z, row + 2u, tokens, c);
    (*sums)[4u * quad + 3u] = drop_sum((*sums)[4u * quad + 3u], words.w, row + 3u, tokens, c);
}

fn drop_sums(
    first_row: u32,
    tokens: u32,
    c: u32,
    sums: ptr<function, array<vec4<f32>, 4u * EXPAND_QUADS>>,
) {
    // Unrolled by hand: some compilers would keep the loop, and the sums in memory.
    drop_quad(0u, first_row, tokens, c, sums);
    if (EXPAND_QUADS > 1u) {
        drop_quad(1u, first_row, tokens, c, sums);
    }
    if (EXPAND_QUADS > 2u) {
        drop_quad(2u, first_row, tokens, c, sums);
        drop_quad(3u, first_row, tokens, c, sums);
    }
}
