// A gradient that the caller adds to dw or dl in `dstate_tile`: `gate_gradient`.
//@ import gate/rows: four_given, given_at
//@ kernel: dstate_tile
//@ host: A_ROWS, EXPERTS, OF_LOGITS, QUADS, WORKGROUP

fn add_gradient(first_token: u32, local: u32) {
    for (var item = local; item < EXPERTS * QUADS; item += WORKGROUP) {
        let expert = item / QUADS;
        dstate_tile[A_ROWS * QUADS + item] += four_given(first_token + 4u * (item % QUADS), expert);
    }
    workgroupBarrier();
}

// The factor of the z-loss, which follows the only row.
fn z_factor() -> f32 { return given_at(EXPERTS); }

fn add_weights_gradient(first_token: u32, local: u32) {
    if (!OF_LOGITS) { add_gradient(first_token, local); }
}

fn add_logits_gradient(first_token: u32, local: u32) {
    if (OF_LOGITS) { add_gradient(first_token, local); }
}
