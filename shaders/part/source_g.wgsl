// backward_input's shrink: X = g, and M is the expand block.

@group(0) @binding(1) var<storage, read> g: array<g_element>;

fn load_source(row: u32, k: u32) -> vec4<f32> { return load_g(row, k); }
fn source_groups() -> u32 { return out_groups(); }
fn source_begin() -> u32 { return 0u; }
fn source_end() -> u32 { return out_groups(); }
fn shrink_matrix() -> u32 { return expand_block(); }
