// The experts' weights, after h in `state`.
//@ kernel: state
//@ host: A_ROWS, QUADS, SIGNS

// The expert's weight for four tokens.
fn weight(expert: u32, quad: u32) -> vec4<f32> {
    var weight = state[(A_ROWS + expert) * QUADS + quad];
    if (SIGNS) { weight = select(weight, vec4<f32>(0.0), weight < vec4<f32>(0.0)); }
    return weight;
}
