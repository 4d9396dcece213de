// Write access to the f32 matrix TENSOR (rows of WIDTH elements, which start STRIDE elements apart), for any
// WIDTH. Elements past the row's end are dropped. Goes after access/read_scalar.wgsl.

fn store_TENSOR(row: u32, column: u32, value: vec4<f32>) {
    let inside = WIDTH - 4u * column;
    let first = row * STRIDE + 4u * column;
    TENSOR[first] = value.x;
    if (inside > 1u) { TENSOR[first + 1u] = value.y; }
    if (inside > 2u) { TENSOR[first + 2u] = value.z; }
    if (inside > 3u) { TENSOR[first + 3u] = value.w; }
}
