// No clipping. There is no norm either, so no step is skipped.

fn skipped() -> bool { return false; }

fn clip(gradient: vec4<f32>) -> vec4<f32> { return gradient; }
