// W0 as backward reads it: rows are the inner dimension, target columns run along them.
//@ import access: load_weight
//@ kernel: TILE_QUADS, dims

// Which (quad of target columns, k) a thread fetches: columns fastest, along W0's rows.
fn weight_item(item: u32) -> vec2<u32> {
    return vec2<u32>(item % TILE_QUADS, item / TILE_QUADS);
}

// Row 4k + i of W0, or zeros past its last row: the source is zero there, and zero times whatever
// stood in a clamped row need not be zero.
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
