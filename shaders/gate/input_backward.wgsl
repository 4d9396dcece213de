// The input router's backward: dl reaches dx through the rows of W_g in the shrink block, so nothing
// is left to do per token.

fn logits_backward(local: u32) {
}
