// dl = w * (dw - sum_i w_i dw_i), in place after dh in `dstate_tile`; then the backward of the logits.
//@ import gate: logits_backward, weight
//@ kernel: dstate_tile, state
//@ host: A_ROWS, EXPERTS, QUADS, SIGNS

// dw -> dl in place, for four tokens at once: the Jacobian of softmax.
fn softmax_backward(quad: u32) {
    var mean = vec4<f32>(0.0);
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let row = (A_ROWS + expert) * QUADS + quad;
        mean += weight(expert, quad) * dstate_tile[row];
    }
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let row = (A_ROWS + expert) * QUADS + quad;
        var dw = dstate_tile[row];
        // The softmax of an expert that was not chosen has a minus, and dw does not reach it.
        if (SIGNS) { dw = select(dw, vec4<f32>(0.0), state[row] < vec4<f32>(0.0)); }
        dstate_tile[row] = abs(state[row]) * (dw - mean);
    }
}

fn gate_backward(local: u32) {
    if (local < QUADS) {
        softmax_backward(local);
    }
    workgroupBarrier();
    logits_backward(local);
}
