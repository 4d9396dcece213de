// The gate whose weights the caller gives: `gates`, tokens x EXPERTS, any numbers. They are state like a router's,
// so backward finds them where it finds those.
//@ import uniform/batch: batch_tokens
//@ kernel: state
//@ host: A_ROWS, EXPERTS, GATES_BINDING, QUADS, WORKGROUP

@group(0) @binding(GATES_BINDING) var<storage, read> gates: array<f32>;

fn gate(first_token: u32, local: u32) {
    let last = batch_tokens() - 1u;
    for (var item = local; item < EXPERTS * QUADS; item += WORKGROUP) {
        let expert = item / QUADS;
        let token = first_token + 4u * (item % QUADS);
        // Tokens past the end repeat the last one. Their results never reach a tensor.
        state[A_ROWS * QUADS + item] = vec4<f32>(
            gates[min(token, last) * EXPERTS + expert],
            gates[min(token + 1u, last) * EXPERTS + expert],
            gates[min(token + 2u, last) * EXPERTS + expert],
            gates[min(token + 3u, last) * EXPERTS + expert],
        );
    }
    workgroupBarrier();
}
