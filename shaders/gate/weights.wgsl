// The experts' weights, after h in `state`.
//@ kernel: state
//@ host: A_ROWS, QUADS

// The expert's weight for four tokens.
fn weight(expert: u32, quad: u32) -> vec4<f32> {
    return state[(A_ROWS + expert) * QUADS + quad];
}
