// No clipping, and no norm by which to skip a step.

fn skipped() -> bool { return false; }

fn clip(gradient: vec4<f32>) -> vec4<f32> { return gradient; }
