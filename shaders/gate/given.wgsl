// Logits or weights that the caller gives: `gates`, rows x EXPERTS, any numbers. They become state like a router's, so
// that what follows finds them where it finds those.
//@ import uniform/batch: batch_tokens
//@ import uniform/fused: dims
//@ kernel: state
//@ host: A_ROWS, EXPERTS, GATES_BINDING, QUADS, WORKGROUP

@group(0) @binding(GATES_BINDING) var<storage, read> gates: array<f32>;

// Tokens past the end repeat the last one. Their results never reach a tensor.
fn given(token: u32, expert: u32) -> f32 {
    return gates[min(token, batch_tokens() - 1u) / dims.row_tokens * EXPERTS + expert];
}

fn logits(first_token: u32, local: u32) {
    for (var item = local; item < EXPERTS * QUADS; item += WORKGROUP) {
        let expert = item / QUADS;
        let token = first_token + 4u * (item % QUADS);
        state[A_ROWS * QUADS + item] = vec4<f32>(
            given(token, expert),
            given(token + 1u, expert),
            given(token + 2u, expert),
            given(token + 3u, expert),
        );
    }
    workgroupBarrier();
}
