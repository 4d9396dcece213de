// Write access to the dense matrix TENSOR (rows of WIDTH elements) where WIDTH is a multiple of 4. Put
// behind access/write_f32.wgsl, write_f16.wgsl or write_bf16.wgsl.

fn store_TENSOR(row: u32, column: u32, group: vec4<f32>) {
    set_group_TENSOR(row * (WIDTH / 4u) + column, group);
}
