// No clipping. There is no norm either, so no step is skipped.
//@ import uniform/hyper: hyper

fn skipped() -> bool { return false; }

fn clip(gradient: vec4<f32>) -> vec4<f32> { return hyper.gradient_scale * gradient; }
