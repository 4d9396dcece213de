// The input router, l = W_g x: its logits are columns of the shrink, so they are in `state` already.

fn logits(local: u32) {
}
