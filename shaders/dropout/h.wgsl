// Dropout of h, for each expert another (R-LoRA): row i * RANK + j is h_j as expert i reads it.
//@ import dropout/words: drop_words, tokens_drop
//@ import uniform/fused: dims

// For four tokens, those from 4 * quad on.
fn kept_latent(quad: u32, row: u32, value: vec4<f32>) -> vec4<f32> {
    let drops = tokens_drop(drop_words(quad, row / 4u), row % 4u);
    return select(dims.keep_scale * value, vec4<f32>(0.0), drops);
}
