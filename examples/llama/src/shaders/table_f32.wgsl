@group(0) @binding(2) var<storage, read> table: array<vec4<f32>>;

fn load_table(index: u32) -> vec4<f32> { return table[index]; }
