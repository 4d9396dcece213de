// W0 as backward reads it: its rows are the inner dimension, and target columns run along them.
//@ import access: load_weight
//@ kernel: TILE_QUADS, dims

// The (quad of target columns, k) that a thread fetches: columns vary fastest, along W0's rows.
fn weight_item(item: u32) -> vec2<u32> {
    return vec2<u32>(item % TILE_QUADS, item / TILE_QUADS);
}

// Elements 4 * quad .. 4 * quad + 3 of row `i` of W0, or zeros past its last row. The source is zero there,
// but clamping the row would not do: zero times an element that is not finite is not zero.
fn weight_row(i: u32, quad: u32) -> vec4<f32> {
    if (i >= dims.source_width) {
        return vec4<f32>(0.0);
    }
    return load_weight(i, quad);
}

// Column n of the result: elements 4k .. 4k + 3 of column 4 * quad + n of W0.
fn weight_block(quad: u32, k: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(
        weight_row(4u * k, quad),
        weight_row(4u * k + 1u, quad),
        weight_row(4u * k + 2u, quad),
        weight_row(4u * k + 3u, quad),
    ));
}
