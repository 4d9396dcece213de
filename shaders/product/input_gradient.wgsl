// dx (+)= A^T dh (+ W_g^T dl for the input router): expand with the shrink block.
//@ import access: load_x_gradient, store_x_gradient, x_gradient_element
//@ import mask: takes
//@ import product/expand: expand
//@ import uniform/batch: batch_tokens
//@ import uniform/fused: dims, in_vecs
//@ kernel: dstate_tile
//@ host: ACCUMULATE

// Not `dx`, which is a namespace in Microsoft's shader compiler.
@group(0) @binding(5) var<storage, read_write> x_gradient: array<x_gradient_element>;

// The coefficients are [dh, dl] of the tile. They are in workgroup memory already, so there is nothing to
// stage.
fn expand_rows() -> u32 { return dims.shrink_rows; }
fn stage(first_token: u32, first_row: u32, count: u32, local: u32) {}
fn coefficient(index: u32) -> vec4<f32> { return dstate_tile[index]; }
fn target_vecs() -> u32 { return in_vecs(); }
fn expand_matrix() -> u32 { return 0u; }
fn load_target(row: u32, c: u32) -> vec4<f32> { return load_x_gradient(row, c); }
fn store_target(row: u32, c: u32, value: vec4<f32>) {
    if (takes(row)) {
        store_x_gradient(row, c, value);
    } else if (!ACCUMULATE) {
        store_x_gradient(row, c, vec4<f32>(0.0));
    }
}

fn input_gradient(first_token: u32, slice: u32, local: u32) {
    let first_vec = slice * dims.slice_vecs;
    expand(first_token, batch_tokens(), first_vec, min(first_vec + dims.slice_vecs, in_vecs()), local);
}
