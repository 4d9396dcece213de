// What a router has in the gate block, at the end of `parameters`: a row for each expert, with its row of the latent
// router's W_g (LATENT_RANK numbers), then its bias, padded to a multiple of four.
//
//   l = W_g h + b, with h = A x; or l = W_g x + b, where the input router's W_g x is in `state` already
//@ import access: vec_parameters
//@ import uniform/fused: gate_block
//@ kernel: state
//@ host: A_ROWS, EXPERTS, GATE_COLUMNS, LATENT_RANK, QUADS, WORKGROUP

fn gate_element(expert: u32, column: u32) -> f32 {
    return vec_parameters(gate_block() + expert * ((GATE_COLUMNS + 3u) / 4u) + column / 4u)[column % 4u];
}

fn logits(first_token: u32, local: u32) {
    for (var item = local; item < EXPERTS * QUADS; item += WORKGROUP) {
        let expert = item / QUADS;
        let quad = item % QUADS;
        var logit = vec4<f32>(0.0);
        if (LATENT_RANK == 0u) { logit = state[(A_ROWS + expert) * QUADS + quad]; }
        for (var j = 0u; j < LATENT_RANK; j++) {
            logit += gate_element(expert, j) * state[j * QUADS + quad];
        }
        if (GATE_COLUMNS > LATENT_RANK) { logit += gate_element(expert, LATENT_RANK); }
        state[(A_ROWS + expert) * QUADS + quad] = logit;
    }
    workgroupBarrier();
}
