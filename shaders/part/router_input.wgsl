// The input router, l = W_g x: its logits are columns of the shrink block and already in `state`.

fn route(local: u32) {
}
