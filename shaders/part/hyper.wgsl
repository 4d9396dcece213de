// What changes from one optimiser step to the next, and what does not: see AdamW on the host.

struct Hyper {
    // vec4 groups in the packed layout
    groups: u32,
    // 1 - learning rate * weight decay
    decay: f32,
    beta1: f32,
    beta2: f32,
    // learning rate / (1 - beta1^step)
    step_size: f32,
    // 1 / sqrt(1 - beta2^step)
    second_scale: f32,
    epsilon: f32,
    max_norm: f32,
}
