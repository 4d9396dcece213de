// Given weights are what `logits` found.
//@ import gate: logits

fn gate(first_token: u32, local: u32) {
    logits(first_token, local);
}
