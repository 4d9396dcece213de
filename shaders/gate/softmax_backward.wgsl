// The backward of a softmax, of which some may be chosen. With the softmax p, the weights w and b = dL/dp of the router's
// losses:
//
//   dl = (u * (dw - sum_i w_i dw_i) + p * (b - sum_i p_i b_i)) / temperature
//
// where u = p, but w with RENORMALISE, and dw is zero for experts that were not chosen. Tokens that do not count for the losses
// have no b. With Z_LOSS, b has the factor * z besides, where z is the logsumexp after the weights in `state`.
//@ import gate: loss_gradient, weight, z_factor
//@ import mask: four_count
//@ import uniform/fused: dims
//@ kernel: dstate_tile, state
//@ host: A_ROWS, EXPERTS, LOSSES, QUADS, RENORMALISE, SIGNS, Z_LOSS

// The softmax over all experts, from what forward saved. `chosen` is the part of it that the chosen have.
fn probability(expert: u32, quad: u32, chosen: vec4<f32>) -> vec4<f32> {
    let saved = state[(A_ROWS + expert) * QUADS + quad];
    if (RENORMALISE) { return select(saved * chosen, abs(saved), saved < vec4<f32>(0.0)); }
    return abs(saved);
}

// dw -> dl in place, for four tokens at once, from `token` on: the Jacobian of softmax.
fn weigh_backward(token: u32, quad: u32) {
    var mean = vec4<f32>(0.0);
    var chosen = vec4<f32>(1.0);
    for (var expert = 0u; expert < EXPERTS; expert++) {
        mean += weight(expert, quad) * dstate_tile[(A_ROWS + expert) * QUADS + quad];
        if (LOSSES && RENORMALISE) { chosen += min(state[(A_ROWS + expert) * QUADS + quad], vec4<f32>(0.0)); }
    }
    var loss_mean = vec4<f32>(0.0);
    var counts = vec4<bool>(true);
    if (LOSSES) {
        counts = four_count(token);
        for (var expert = 0u; expert < EXPERTS; expert++) {
            loss_mean += probability(expert, quad, chosen) * loss_gradient(expert);
        }
    }
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let row = (A_ROWS + expert) * QUADS + quad;
        var dw = dstate_tile[row];
        if (SIGNS) { dw = select(dw, vec4<f32>(0.0), state[row] < vec4<f32>(0.0)); }
        var slope = dw - mean;
        if (RENORMALISE) { slope *= weight(expert, quad); } else { slope *= abs(state[row]); }
        if (LOSSES) {
            var of_losses = loss_gradient(expert) - loss_mean;
            if (Z_LOSS) { of_losses += z_factor() * state[(A_ROWS + EXPERTS) * QUADS + quad]; }
            slope += select(vec4<f32>(0.0), probability(expert, quad, chosen) * of_losses, counts);
        }
        dstate_tile[row] = dims.logit_scale * slope;
    }
}
