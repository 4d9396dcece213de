// backward_input's shrink: X = g, and M is the expand block.
//@ import access: g_element, load_g
//@ import uniform/fused: expand_block, out_vecs

@group(0) @binding(1) var<storage, read> g: array<g_element>;

fn load_source(row: u32, k: u32) -> vec4<f32> { return load_g(row, k); }
fn source_vecs() -> u32 { return out_vecs(); }
fn source_begin() -> u32 { return 0u; }
fn source_end() -> u32 { return out_vecs(); }
fn shrink_matrix() -> u32 { return expand_block(); }
