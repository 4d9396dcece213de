// The tokens that take the adapter: those whose number in `mask` is not zero. The others get nothing from it, whatever
// their numbers are, and give it no gradient. Of those that take it, the ones with a number above zero count for the router's
// losses.
//@ import uniform/batch: batch_tokens
//@ host: MASK_BINDING

@group(0) @binding(MASK_BINDING) var<storage, read> mask: array<f32>;

fn takes(token: u32) -> bool { return mask[token] != 0.0; }
fn counts(token: u32) -> bool { return mask[token] > 0.0; }

// Tokens past the end repeat the last one.
fn four_take(token: u32) -> vec4<bool> { return four_masks(token) != vec4<f32>(0.0); }
fn four_count(token: u32) -> vec4<bool> { return four_masks(token) > vec4<f32>(0.0); }

fn four_masks(token: u32) -> vec4<f32> {
    let last = batch_tokens() - 1u;
    return vec4<f32>(
        mask[min(token, last)],
        mask[min(token + 1u, last)],
        mask[min(token + 2u, last)],
        mask[min(token + 3u, last)],
    );
}
