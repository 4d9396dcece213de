// w = softmax(l), in place: `logits` leaves the logits in `state`, after h, and they become the weights.
//@ import gate: logits
//@ kernel: state
//@ host: EXPERTS, QUADS, RANK

// l -> w in place, for four tokens at once. The maximum is subtracted first, so logits may have any size.
fn softmax(quad: u32) {
    var largest = state[RANK * QUADS + quad];
    for (var expert = 1u; expert < EXPERTS; expert++) {
        largest = max(largest, state[(RANK + expert) * QUADS + quad]);
    }
    var total = vec4<f32>(0.0);
    for (var expert = 0u; expert < EXPERTS; expert++) {
        let exponential = exp(state[(RANK + expert) * QUADS + quad] - largest);
        state[(RANK + expert) * QUADS + quad] = exponential;
        total += exponential;
    }
    for (var expert = 0u; expert < EXPERTS; expert++) {
        state[(RANK + expert) * QUADS + quad] = state[(RANK + expert) * QUADS + quad] / total;
    }
}

fn gate(local: u32) {
    logits(local);
    if (local < QUADS) {
        softmax(local);
    }
    workgroupBarrier();
}
