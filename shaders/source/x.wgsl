// forward's shrink: X = x, and M is the shrink block.
//@ import access: load_x, x_element
//@ import uniform/fused: in_vecs

@group(0) @binding(1) var<storage, read> x: array<x_element>;

fn load_source(row: u32, k: u32) -> vec4<f32> { return load_x(row, k); }
fn source_vecs() -> u32 { return in_vecs(); }
fn source_begin() -> u32 { return 0u; }
fn source_end() -> u32 { return in_vecs(); }
fn shrink_matrix() -> u32 { return 0u; }
