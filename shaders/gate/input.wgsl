// The input router, l = W_g x: its logits are columns of the shrink block and already in `state`.

fn logits(local: u32) {
}
