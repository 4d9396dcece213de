// Nothing before this layer is trained, so dx is not wanted.

fn input_gradient(first_token: u32, slice: u32, local: u32) {
}
