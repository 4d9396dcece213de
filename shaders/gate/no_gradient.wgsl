// The caller adds no gradient.

fn loss_gradient(expert: u32) -> f32 { return 0.0; }
fn z_factor() -> f32 { return 0.0; }
fn add_weights_gradient(first_token: u32, local: u32) {}
fn add_logits_gradient(first_token: u32, local: u32) {}
