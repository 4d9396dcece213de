// Which elements are dropped. Sixteen of them, four of a row for each of four tokens, share four random words, one for
// each token. Each element has 16 bits of its token's word, from bit 0, 8, 16 and 24 on, around the end, and is dropped
// if they are below the threshold. So every element has exactly its probability. Neighbours share eight bits, which
// matter to both only where the higher eight of one equal those of the threshold.
//@ import random/philox: philox
//@ import uniform/batch: batch
//@ kernel: dims

// The words of the four tokens from 4 * quad on, for elements 4 * four .. 4 * four + 4 of their rows.
fn drop_words(quad: u32, four: u32) -> vec4<u32> {
    return philox(vec4<u32>(quad, four, batch.step, dims.dropout_stream), vec2<u32>(batch.seed_low, batch.seed_high));
}

// Whether four tokens drop an element: 0 to 3.
fn tokens_drop(words: vec4<u32>, element: u32) -> vec4<bool> {
    let at = 8u * element;
    let bits = (words >> vec4<u32>(at)) | (words << vec4<u32>((32u - at) % 32u));
    return (bits & vec4<u32>(0xffffu)) < vec4<u32>(dims.dropout_threshold);
}

// Which of four elements a token drops.
fn elements_drop(word: u32) -> vec4<bool> {
    let bits = vec4<u32>(word, word >> 8u, word >> 16u, (word >> 24u) | (word << 8u));
    return (bits & vec4<u32>(0xffffu)) < vec4<u32>(dims.dropout_threshold);
}
