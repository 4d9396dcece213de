// Dropout of TENSOR in the products: the rows of dA see what is kept of it, those of dW_g all of it.
//@ import dropout/words: drop_words, elements_drop
//@ host: A_ROWS

fn drops_of_TENSOR(token: u32, column: u32) -> vec4<u32> { return drop_words(token / 4u, column); }
fn word_of_TENSOR(words: vec4<u32>, token: u32) -> u32 { return words[token % 4u]; }
fn kept_TENSOR(value: vec4<f32>, word: u32) -> vec4<f32> {
    return select(value, vec4<f32>(0.0), elements_drop(word));
}
// Where A has whole fours of rows, all four of a quad see the same.
fn seen_TENSOR(row: u32, value: vec4<f32>, kept: vec4<f32>) -> vec4<f32> {
    let at = select(row, row / 4u * 4u, A_ROWS % 4u == 0u);
    return select(value, kept, at < A_ROWS);
}
