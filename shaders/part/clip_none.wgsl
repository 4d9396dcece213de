// No clipping.

fn clip_factor(local: u32) -> f32 { return 1.0; }
