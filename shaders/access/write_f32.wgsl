// Put behind access/f32.wgsl.

fn set_group_TENSOR(at: u32, group: vec4<f32>) { TENSOR[at] = group; }
