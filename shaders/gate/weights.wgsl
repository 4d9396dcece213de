// The experts' weights, behind h in `state`.
//@ kernel: state
//@ host: QUADS, RANK

// w of an expert for four tokens.
fn weight(expert: u32, quad: u32) -> vec4<f32> {
    return state[(RANK + expert) * QUADS + quad];
}
