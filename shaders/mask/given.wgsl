// The tokens that take the adapter: those whose number in `mask` is not zero. The others get nothing from it, whatever
// their numbers are, and give it no gradient.
//@ import uniform/batch: batch_tokens
//@ host: MASK_BINDING

@group(0) @binding(MASK_BINDING) var<storage, read> mask: array<f32>;

fn takes(token: u32) -> bool { return mask[token] != 0.0; }

// Tokens past the end repeat the last one.
fn four_take(token: u32) -> vec4<bool> {
    let last = batch_tokens() - 1u;
    return vec4<bool>(
        takes(min(token, last)),
        takes(min(token + 1u, last)),
        takes(min(token + 2u, last)),
        takes(min(token + 3u, last)),
    );
}
