// w = softmax(l / temperature), of which `choose` may leave a few. With LOGSUMEXP, log sum exp(l / temperature) follows
// the weights in `state`.
//@ import gate: choose
//@ import uniform/fused: dims
//@ kernel: state
//@ host: A_ROWS, EXPERTS, LOGSUMEXP, QUADS

// l -> w in place, for four tokens at once. The maximum is subtracted first, so logits may have any size.
fn weigh(quad: u32) {
    var largest = state[A_ROWS * QUADS + quad];
    for (var expert = 1u; expert < EXPERTS; expert++) {
        largest = max(largest, state[(A_ROWS + expert) * QUADS + quad]);
    }
    var total = vec4<f32>(0.0);
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let exponential = exp(dims.logit_scale * (state[(A_ROWS + expert) * QUADS + quad] - largest));
        state[(A_ROWS + expert) * QUADS + quad] = exponential;
        total += exponential;
    }
    for (var expert = 0u; expert < EXPERTS; expert++) {
        state[(A_ROWS + expert) * QUADS + quad] = state[(A_ROWS + expert) * QUADS + quad] / total;
    }
    if (LOGSUMEXP) { state[(A_ROWS + EXPERTS) * QUADS + quad] = dims.logit_scale * largest + log(total); }
    choose(quad);
}
