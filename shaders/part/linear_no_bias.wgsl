// No bias.

fn bias_quad(c: u32) -> vec4<f32> { return vec4<f32>(0.0); }
