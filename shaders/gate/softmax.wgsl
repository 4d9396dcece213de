// w = softmax(l), in place: `logits` leaves the logits in `state`, after h, and they become the weights, of which
// `choose` may leave a few.
//@ import gate: choose, logits
//@ kernel: state
//@ host: A_ROWS, EXPERTS, QUADS

// l -> w in place, for four tokens at once. The maximum is subtracted first, so logits may have any size.
fn softmax(quad: u32) {
    var largest = state[A_ROWS * QUADS + quad];
    for (var expert = 1u; expert < EXPERTS; expert++) {
        largest = max(largest, state[(A_ROWS + expert) * QUADS + quad]);
    }
    var total = vec4<f32>(0.0);
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let exponential = exp(state[(A_ROWS + expert) * QUADS + quad] - largest);
        state[(A_ROWS + expert) * QUADS + quad] = exponential;
        total += exponential;
    }
    for (var expert = 0u; expert < EXPERTS; expert++) {
        state[(A_ROWS + expert) * QUADS + quad] = state[(A_ROWS + expert) * QUADS + quad] / total;
    }
}

fn gate(first_token: u32, local: u32) {
    logits(local);
    if (local < QUADS) {
        softmax(local);
        choose(local);
    }
    workgroupBarrier();
}
