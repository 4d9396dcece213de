// dl = w * (1 - w) * dw / temperature; with NORMALISE, where w = sigmoid / total, it is
// w * (1 - total * w) * (dw - sum_i w_i dw_i) / temperature.
//@ import uniform/fused: dims
//@ kernel: dstate_tile, state
//@ host: A_ROWS, EXPERTS, NORMALISE, QUADS

// dw -> dl in place, for four tokens at once, from `token` on.
fn weigh_backward(token: u32, quad: u32) {
    var mean = vec4<f32>(0.0);
    var total = vec4<f32>(1.0);
    if (NORMALISE) {
        for (var expert = 0u; expert < EXPERTS; expert++) {
            let row = (A_ROWS + expert) * QUADS + quad;
            mean += state[row] * dstate_tile[row];
        }
        total = state[(A_ROWS + EXPERTS) * QUADS + quad];
    }
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let row = (A_ROWS + expert) * QUADS + quad;
        let slope = state[row] * (1.0 - total * state[row]);
        dstate_tile[row] = dims.logit_scale * (slope * (dstate_tile[row] - mean));
    }
}
