// W0 as forward reads it: its rows are target columns, and the inner dimension runs along them.
//@ import access: load_weight
//@ kernel: dims
//@ host: DEPTH

// The (quad of target columns, k) that a thread fetches: k varies fastest, along W0's rows.
fn weight_item(item: u32) -> vec2<u32> {
    return vec2<u32>(item / DEPTH, item % DEPTH);
}

// Column n of the result: elements 4k .. 4k + 3 of row 4 * quad + n of W0.
fn weight_block(quad: u32, k: u32) -> mat4x4<f32> {
    let last = dims.target_width - 1u;
    return mat4x4<f32>(
        load_weight(4u * quad, k),
        load_weight(min(4u * quad + 1u, last), k),
        load_weight(min(4u * quad + 2u, last), k),
        load_weight(min(4u * quad + 3u, last), k),
    );
}
