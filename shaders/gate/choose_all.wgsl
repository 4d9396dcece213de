// All experts are chosen.

fn choose(quad: u32) {}
