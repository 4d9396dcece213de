// TENSOR is bf16, the upper halves of f32: vec4s of four elements, 8 bytes each.

alias TENSOR_element = vec2<u32>;

fn vec_TENSOR(at: u32) -> vec4<f32> {
    let words = TENSOR[at];
    return vec4<f32>(
        bitcast<f32>(words.x << 16u),
        bitcast<f32>(words.x & 0xffff0000u),
        bitcast<f32>(words.y << 16u),
        bitcast<f32>(words.y & 0xffff0000u),
    );
}
