// The expand without dropout of what it adds to.
//@ host: EXPAND_QUADS

fn drop_sums(
    first_row: u32,
    tokens: u32,
    c: u32,
    sums: ptr<function, array<vec4<f32>, 4u * EXPAND_QUADS>>,
) {}
