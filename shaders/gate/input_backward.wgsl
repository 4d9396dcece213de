// The input router's backward: dl reaches dx through the rows of W_g in the shrink block, so no work per
// token is left.

fn logits_backward(local: u32) {
}
