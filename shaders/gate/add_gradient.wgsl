// A gradient that the caller adds to dw or dl in `dstate_tile`: `gate_gradient`. OF_SOFTMAX: it is of the softmax before
// any choice, and softmax_backward.wgsl takes it. OF_LOSSES: it is one of the router's losses, for tokens that count.
//@ import gate/rows: four_given, given_at
//@ import mask: four_count
//@ kernel: dstate_tile
//@ host: A_ROWS, EXPERTS, OF_LOGITS, OF_LOSSES, OF_SOFTMAX, QUADS, WORKGROUP

fn add_gradient(first_token: u32, local: u32) {
    for (var item = local; item < EXPERTS * QUADS; item += WORKGROUP) {
        let expert = item / QUADS;
        let token = first_token + 4u * (item % QUADS);
        var added = four_given(token, expert);
        if (OF_LOSSES) { added = select(vec4<f32>(0.0), added, four_count(token)); }
        dstate_tile[A_ROWS * QUADS + item] += added;
    }
    workgroupBarrier();
}

// Of the losses, whose only row all tokens share, and the factor of the z-loss, which follows it.
fn loss_gradient(expert: u32) -> f32 { return given_at(expert); }
fn z_factor() -> f32 { return given_at(EXPERTS); }

fn add_weights_gradient(first_token: u32, local: u32) {
    if (!OF_LOGITS && !OF_SOFTMAX) { add_gradient(first_token, local); }
}

fn add_logits_gradient(first_token: u32, local: u32) {
    if (OF_LOGITS) { add_gradient(first_token, local); }
}
