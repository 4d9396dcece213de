// Coefficients in workgroup memory that all lanes want at once: each lane reads one of them and holds it,
// and all get it from there. For devices on which lanes read memory one after another.
//
// Consts: HOLDERS (lanes that hold: a power of two, at most any subgroup's size).
// The kernel provides coefficient(index) -> vec4.

fn hold(index: u32) -> vec4<f32> { return coefficient(index); }
fn held(holding: vec4<f32>, lane: u32, index: u32) -> vec4<f32> { return subgroupShuffle(holding, lane); }
