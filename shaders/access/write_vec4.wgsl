// Write access to the dense f32 matrix TENSOR (rows of WIDTH elements) where WIDTH is a multiple
// of 4: one vec4 store. Put behind access/read_vec4.wgsl.

fn store_TENSOR(row: u32, column: u32, group: vec4<f32>) {
    TENSOR[row * (WIDTH / 4u) + column] = group;
}
