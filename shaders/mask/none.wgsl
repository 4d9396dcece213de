// All tokens take the adapter.

fn takes(token: u32) -> bool { return true; }
fn four_take(token: u32) -> vec4<bool> { return vec4<bool>(true); }
