@group(0) @binding(2) var<storage, read> table: array<vec2<u32>>;

fn load_table(index: u32) -> vec4<f32> {
    let words = table[index];
    return bitcast<vec4<f32>>(vec4<u32>(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
}
