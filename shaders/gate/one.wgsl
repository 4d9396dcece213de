// The gate of one expert: the weight is 1, so there are no logits and no gradient through it.

// The expert's weight for four tokens.
fn weight(expert: u32, quad: u32) -> vec4<f32> { return vec4<f32>(1.0); }

fn gate(first_token: u32, local: u32) {}

fn gate_backward(first_token: u32, local: u32) {}
