// W0 as forward multiplies it: its rows are target columns, so the matrix is read by columns.
//@ import uniform/linear: dims
//@ kernel: weight

fn weight_matrix(k: u32, column: u32) -> coop_matSIZE<f16, B> {
    return coopLoad<coop_matSIZE<f16, B>>(&weight[column * dims.source_width + k], dims.source_width);
}
