// A gradient that the caller adds to dw or dl in `dstate_tile`: `gate_gradient`, rows x EXPERTS.
//@ import uniform/batch: batch_tokens
//@ import uniform/fused: dims
//@ kernel: dstate_tile
//@ host: A_ROWS, EXPERTS, GATE_GRADIENT_BINDING, OF_LOGITS, QUADS, WORKGROUP

@group(0) @binding(GATE_GRADIENT_BINDING) var<storage, read> gate_gradient: array<f32>;

// Tokens past the end repeat the last one. Their results never reach a tensor.
fn added(token: u32, expert: u32) -> f32 {
    return gate_gradient[min(token, batch_tokens() - 1u) / dims.row_tokens * EXPERTS + expert];
}

fn add_gradient(first_token: u32, local: u32) {
    for (var item = local; item < EXPERTS * QUADS; item += WORKGROUP) {
        let expert = item / QUADS;
        let token = first_token + 4u * (item % QUADS);
        dstate_tile[A_ROWS * QUADS + item] += vec4<f32>(
            added(token, expert),
            added(token + 1u, expert),
            added(token + 2u, expert),
            added(token + 3u, expert),
        );
    }
    workgroupBarrier();
}

fn add_weights_gradient(first_token: u32, local: u32) {
    if (!OF_LOGITS) { add_gradient(first_token, local); }
}

fn add_logits_gradient(first_token: u32, local: u32) {
    if (OF_LOGITS) { add_gradient(first_token, local); }
}
