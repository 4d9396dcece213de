// All lanes need the same coefficients from workgroup memory at once. Here every lane reads all of them.
//
// The kernel provides coefficient(index) -> vec4.
//@ kernel: coefficient

fn load_own(index: u32) -> vec4<f32> { return vec4<f32>(0.0); }
fn broadcast(own_coefficient: vec4<f32>, lane: u32, index: u32) -> vec4<f32> { return coefficient(index); }
