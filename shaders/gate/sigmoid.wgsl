// w = sigmoid(l / temperature). With NORMALISE it is divided by the sum of all experts' and 1e-20, and this sum follows
// the weights in `state`, as backward needs it.
//@ import uniform/fused: dims
//@ kernel: state
//@ host: A_ROWS, EXPERTS, NORMALISE, QUADS

// l -> w in place, for four tokens at once. No exponential overflows.
fn weigh(quad: u32) {
    var total = vec4<f32>(1e-20);
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let logit = dims.logit_scale * state[(A_ROWS + expert) * QUADS + quad];
        let exponential = exp(-abs(logit));
        let sigmoid = select(exponential, vec4<f32>(1.0), logit >= vec4<f32>(0.0)) / (1.0 + exponential);
        state[(A_ROWS + expert) * QUADS + quad] = sigmoid;
        total += sigmoid;
    }
    if (NORMALISE) {
        for (var expert = 0u; expert < EXPERTS; expert++) {
            state[(A_ROWS + expert) * QUADS + quad] = state[(A_ROWS + expert) * QUADS + quad] / total;
        }
        state[(A_ROWS + EXPERTS) * QUADS + quad] = total;
    }
}
