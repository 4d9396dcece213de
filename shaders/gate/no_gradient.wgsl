// The caller adds no gradient.

fn add_weights_gradient(first_token: u32, local: u32) {}
fn add_logits_gradient(first_token: u32, local: u32) {}
