// W0 as forward reads it: its rows are target columns, and the inner dimension runs along them.
//@ import access: load_weight
//@ import uniform/linear: dims

// Elements 4k .. 4k + 3 of row `o` of W0, or zeros from `end` on. The source is zero there too, but zero times
// an element that is not finite is not zero.
fn weight_vec(o: u32, k: u32, end: u32) -> vec4<f32> {
    let value = load_weight(min(o, dims.target_width - 1u), min(k, end - 1u));
    return select(vec4<f32>(0.0), value, k < end);
}

// Column n of the result: element 4k + n of rows 4 * quad .. 4 * quad + 3 of W0.
fn weight_block(quad: u32, k: u32, end: u32) -> mat4x4<f32> {
    return transpose(mat4x4<f32>(
        weight_vec(4u * quad, k, end),
        weight_vec(4u * quad + 1u, k, end),
        weight_vec(4u * quad + 2u, k, end),
        weight_vec(4u * quad + 3u, k, end),
    ));
}
