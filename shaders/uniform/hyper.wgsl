// The optimiser's constants, corrected for its step (AdamWHyper::uniform on the host). All buffers of a model
// share this uniform.

struct Hyper {
    // for each group of parameters: 1 - learning rate * weight decay
    decay: vec4<f32>,
    // for each group: learning rate / (1 - beta1^step)
    step_size: vec4<f32>,
    beta1: f32,
    beta2: f32,
    // 1 / sqrt(1 - beta2^step)
    second_scale: f32,
    epsilon: f32,
    max_norm: f32,
    // what gradients are multiplied by before anything else
    gradient_scale: f32,
}

@group(1) @binding(0) var<uniform> hyper: Hyper;
