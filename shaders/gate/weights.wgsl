// The experts' weights, after h in `state`.
//@ kernel: state
//@ host: QUADS, RANK

// The expert's weight for four tokens.
fn weight(expert: u32, quad: u32) -> vec4<f32> {
    return state[(RANK + expert) * QUADS + quad];
}
