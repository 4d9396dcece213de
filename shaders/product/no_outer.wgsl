// For a block that another dispatch computes, or that the layer does not have.

fn outer_TENSOR(block: u32, row_vecs: u32, rows: u32, matrix: u32, split: u32, local: u32) {
}
