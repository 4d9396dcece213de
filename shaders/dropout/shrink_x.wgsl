// Dropout of x in the shrink: A's rows see x with elements dropped, the router's see all of it. Who takes the columns
// of A scales them.
//@ import dropout/words: drop_words, tokens_drop
//@ host: A_ROWS

fn is_dropped(column: u32) -> bool { return column < A_ROWS; }

// Four elements of four tokens, x[i] those with index 4 * k + i.
fn with_drops(quad: u32, k: u32, x: mat4x4<f32>) -> mat4x4<f32> {
    let words = drop_words(quad, k);
    let zero = vec4<f32>(0.0);
    return mat4x4<f32>(
        select(x[0], zero, tokens_drop(words, 0u)),
        select(x[1], zero, tokens_drop(words, 1u)),
        select(x[2], zero, tokens_drop(words, 2u)),
        select(x[3], zero, tokens_drop(words, 3u)),
    );
}
