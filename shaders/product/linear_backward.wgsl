// W0 as backward reads it: its rows are the inner dimension, and target columns run along them.
//@ import access: load_weight
//@ import uniform/linear: dims

// Elements 4 * quad .. 4 * quad + 3 of row `i` of W0, or zeros from `end` on. The source is zero there too, but
// zero times an element that is not finite is not zero.
fn weight_vec(i: u32, quad: u32, end: u32) -> vec4<f32> {
    let value = load_weight(min(i, end - 1u), quad);
    return select(vec4<f32>(0.0), value, i < end);
}

// Column n of the result: elements 4 * quad .. 4 * quad + 3 of row 4k + n of W0.
fn weight_block(quad: u32, k: u32, end: u32) -> mat4x4<f32> {
    let end_row = min(4u * end, dims.source_width);
    return mat4x4<f32>(
        weight_vec(4u * k, quad, end_row),
        weight_vec(4u * k + 1u, quad, end_row),
        weight_vec(4u * k + 2u, quad, end_row),
        weight_vec(4u * k + 3u, quad, end_row),
    );
}
