// Write access to the matrix TENSOR (rows of WIDTH elements, which start STRIDE elements apart), where both
// are multiples of 4. Goes after access/write_f32.wgsl, write_f16.wgsl or write_bf16.wgsl.
//@ import access: set_vec_TENSOR

fn store_TENSOR(row: u32, column: u32, value: vec4<f32>) {
    set_vec_TENSOR(row * (STRIDE / 4u) + column, value);
}
