// The backward of given weights: dw, after dh in `dstate_tile`, is their gradient, and goes no further.
//@ import gate: add_weights_gradient

fn gate_backward(first_token: u32, local: u32) {
    add_weights_gradient(first_token, local);
}
