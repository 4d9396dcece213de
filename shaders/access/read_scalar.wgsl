// Read access to the f32 matrix TENSOR (rows of WIDTH elements, which start STRIDE elements apart), for any
// WIDTH. Rows may start at any element, so four elements are read one by one. Elements past the row's end are
// zero.

alias TENSOR_element = f32;

// Elements 4 * column .. 4 * column + 3 of `row`.
fn load_TENSOR(row: u32, column: u32) -> vec4<f32> {
    let inside = WIDTH - 4u * column;
    let first = row * STRIDE + 4u * column;
    var value = vec4<f32>(TENSOR[first], 0.0, 0.0, 0.0);
    if (inside > 1u) { value.y = TENSOR[first + 1u]; }
    if (inside > 2u) { value.z = TENSOR[first + 2u]; }
    if (inside > 3u) { value.w = TENSOR[first + 3u]; }
    return value;
}
