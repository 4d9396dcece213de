// Read access to the dense f32 matrix TENSOR (rows of WIDTH elements) where WIDTH is a multiple
// of 4: one vec4 load.

alias TENSOR_element = vec4<f32>;

// Elements 4 * column .. 4 * column + 3 of `row`.
fn load_TENSOR(row: u32, column: u32) -> vec4<f32> {
    return TENSOR[row * (WIDTH / 4u) + column];
}
