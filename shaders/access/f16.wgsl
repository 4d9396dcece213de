// TENSOR is f16: vec4s of four elements, 8 bytes each. The device's f16 feature is not needed.

alias TENSOR_element = vec2<u32>;

fn vec_TENSOR(at: u32) -> vec4<f32> {
    let words = TENSOR[at];
    return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
