// The latent router, l = W_g h with h = A x: W_g is an EXPERTS x RANK block at the end of
// `parameters`, its rows padded to a multiple of four.
//@ import access: vec_parameters
//@ import uniform/fused: latent_block
//@ kernel: state
//@ host: A_ROWS, EXPERTS, QUADS, RANK, WORKGROUP

fn logits(local: u32) {
    let matrix = latent_block();
    for (var item = local; item < EXPERTS * QUADS; item += WORKGROUP) {
        let expert = item / QUADS;
        let quad = item % QUADS;
        var logit = vec4<f32>(0.0);
        for (var j = 0u; j < RANK; j++) {
            logit += vec_parameters(matrix + expert * ((RANK + 3u) / 4u) + j / 4u)[j % 4u]
                * state[j * QUADS + quad];
        }
        state[(A_ROWS + expert) * QUADS + quad] = logit;
    }
    workgroupBarrier();
}
