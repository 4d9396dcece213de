// TENSOR is f32: vec4s of four elements, 16 bytes each.

alias TENSOR_element = vec4<f32>;

fn vec_TENSOR(at: u32) -> vec4<f32> { return TENSOR[at]; }
