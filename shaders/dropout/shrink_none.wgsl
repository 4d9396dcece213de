// The shrink without dropout.

fn is_dropped(column: u32) -> bool { return false; }
fn with_drops(quad: u32, k: u32, x: mat4x4<f32>) -> mat4x4<f32> { return x; }
