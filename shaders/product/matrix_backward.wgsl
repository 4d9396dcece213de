// W0 as the gradient of the input multiplies it: its rows are the inner dimension, so the matrix is read by rows.
//@ import uniform/linear: dims
//@ kernel: weight

fn weight_matrix(k: u32, column: u32) -> coop_matSIZE<f16, B> {
    return coopLoadT<coop_matSIZE<f16, B>>(&weight[k * dims.target_width + column], dims.target_width);
}
