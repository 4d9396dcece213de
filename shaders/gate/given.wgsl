// Logits or weights that the caller gives: `gates`, any numbers. They become state like a router's, so that what follows
// finds them where it finds those.
//@ import gate/rows: four_given
//@ kernel: state
//@ host: A_ROWS, EXPERTS, QUADS, WORKGROUP

fn logits(first_token: u32, local: u32) {
    for (var item = local; item < EXPERTS * QUADS; item += WORKGROUP) {
        let expert = item / QUADS;
        state[A_ROWS * QUADS + item] = four_given(first_token + 4u * (item % QUADS), expert);
    }
    workgroupBarrier();
}
