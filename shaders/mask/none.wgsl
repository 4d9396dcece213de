// All tokens take the adapter, and count for the router's losses.

fn takes(token: u32) -> bool { return true; }
fn counts(token: u32) -> bool { return true; }
fn four_take(token: u32) -> vec4<bool> { return vec4<bool>(true); }
fn four_count(token: u32) -> vec4<bool> { return vec4<bool>(true); }
