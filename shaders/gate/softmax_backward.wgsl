// dl = w * (dw - sum_i w_i dw_i) / temperature; with Z_LOSS also (factor * z * w) / temperature, where z is the logsumexp
// after the weights in `state`.
//@ import gate: weight, z_factor
//@ import uniform/fused: dims
//@ kernel: dstate_tile, state
//@ host: A_ROWS, EXPERTS, QUADS, SIGNS, Z_LOSS

// dw -> dl in place, for four tokens at once: the Jacobian of softmax.
fn weigh_backward(quad: u32) {
    var mean = vec4<f32>(0.0);
    for (var expert = 0u; expert < EXPERTS; expert++) {
        mean += weight(expert, quad) * dstate_tile[(A_ROWS + expert) * QUADS + quad];
    }
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let row = (A_ROWS + expert) * QUADS + quad;
        var dw = dstate_tile[row];
        // The softmax of an expert that was not chosen has a minus, and dw does not reach it.
        if (SIGNS) { dw = select(dw, vec4<f32>(0.0), state[row] < vec4<f32>(0.0)); }
        var slope = dw - mean;
        if (Z_LOSS) { slope += z_factor() * state[(A_ROWS + EXPERTS) * QUADS + quad]; }
        dstate_tile[row] = dims.logit_scale * (abs(state[row]) * slope);
    }
}
