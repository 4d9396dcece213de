// The latent router's backward: dh += W_g^T dl.
//@ import access: vec_parameters
//@ import uniform/fused: gate_block
//@ kernel: dstate_tile
//@ host: A_ROWS, EXPERTS, GATE_COLUMNS, LATENT_RANK, QUADS, WORKGROUP

fn logits_backward(local: u32) {
    let matrix = gate_block();
    for (var item = local; item < LATENT_RANK * QUADS; item += WORKGROUP) {
        let j = item / QUADS;
        let quad = item % QUADS;
        var sum = dstate_tile[item];
        for (var expert = 0u; expert < EXPERTS; expert++) {
            sum += vec_parameters(matrix + expert * ((GATE_COLUMNS + 3u) / 4u) + j / 4u)[j % 4u]
                * dstate_tile[(A_ROWS + expert) * QUADS + quad];
        }
        dstate_tile[item] = sum;
    }
    workgroupBarrier();
}
