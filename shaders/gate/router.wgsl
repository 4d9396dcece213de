// The weights of a router: `logits` leaves the logits in `state`, after h, and they become the weights in place.
//@ import gate: logits, weigh
//@ host: QUADS

fn gate(first_token: u32, local: u32) {
    logits(first_token, local);
    if (local < QUADS) {
        weigh(local);
    }
    workgroupBarrier();
}
