// The backward of given weights: dw, after dh in `dstate_tile`, is their gradient, and goes no further.

fn gate_backward(local: u32) {}
