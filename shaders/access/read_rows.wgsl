// Read access to the dense matrix TENSOR (rows of WIDTH elements) where WIDTH is a multiple of 4. Put
// behind access/f32.wgsl, f16.wgsl or bf16.wgsl.

// Elements 4 * column .. 4 * column + 3 of `row`.
fn load_TENSOR(row: u32, column: u32) -> vec4<f32> {
    return group_TENSOR(row * (WIDTH / 4u) + column);
}
