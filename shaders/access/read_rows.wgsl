// Read access to the matrix TENSOR (rows of WIDTH elements, which start STRIDE elements apart), where both
// are multiples of 4. Goes after access/f32.wgsl, f16.wgsl or bf16.wgsl.
//@ import access: vec_TENSOR

// Elements 4 * column .. 4 * column + 3 of `row`.
fn load_TENSOR(row: u32, column: u32) -> vec4<f32> {
    return vec_TENSOR(row * (STRIDE / 4u) + column);
}
