// All lanes need the same coefficients from workgroup memory at once. Here each lane reads one coefficient
// and broadcasts it to the others, for devices on which lanes read memory one after another.
//
// The kernel provides coefficient(index) -> vec4.
//@ kernel: coefficient

fn load_own(index: u32) -> vec4<f32> { return coefficient(index); }
fn broadcast(own_coefficient: vec4<f32>, lane: u32, index: u32) -> vec4<f32> { return subgroupShuffle(own_coefficient, lane); }
