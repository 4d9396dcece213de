@group(0) @binding(2) var<storage, read> table: array<vec2<u32>>;

fn load_table(index: u32) -> vec4<f32> {
    let words = table[index];
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
