// TENSOR: numbers that the caller gives for each expert, rows x EXPERTS. Tokens may share a row.
//@ import uniform/batch: batch_tokens
//@ import uniform/fused: dims
//@ host: EXPERTS, GIVEN_BINDING

@group(0) @binding(GIVEN_BINDING) var<storage, read> TENSOR: array<f32>;

fn given_at(index: u32) -> f32 { return TENSOR[index]; }

// Tokens past the end repeat the last one. Their results never reach a tensor.
fn given(token: u32, expert: u32) -> f32 {
    return given_at(min(token, batch_tokens() - 1u) / dims.row_tokens * EXPERTS + expert);
}

// For four tokens.
fn four_given(token: u32, expert: u32) -> vec4<f32> {
    return vec4<f32>(
        given(token, expert),
        given(token + 1u, expert),
        given(token + 2u, expert),
        given(token + 3u, expert),
    );
}
