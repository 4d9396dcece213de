// A router's backward: dw, after dh in `dstate_tile`, becomes dl in place; then the backward of the logits. Gradients
// of other losses come in between.
//@ import gate: add_logits_gradient, add_weights_gradient, logits_backward, weigh_backward
//@ host: QUADS

fn gate_backward(first_token: u32, local: u32) {
    add_weights_gradient(first_token, local);
    if (local < QUADS) {
        weigh_backward(first_token + 4u * local, local);
    }
    workgroupBarrier();
    add_logits_gradient(first_token, local);
    logits_backward(local);
}
