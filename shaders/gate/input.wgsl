// The input router without a bias, l = W_g x: its logits are columns of the shrink, so they are in `state` already.

fn logits(first_token: u32, local: u32) {}
