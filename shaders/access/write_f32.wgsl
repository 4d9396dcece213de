// Goes after access/f32.wgsl.

fn set_vec_TENSOR(at: u32, value: vec4<f32>) { TENSOR[at] = value; }
