// Goes after access/bf16.wgsl. Rounds to nearest, ties to even; NaN stays NaN.

fn set_vec_TENSOR(at: u32, value: vec4<f32>) {
    let bits = bitcast<vec4<u32>>(value);
    let rounded = (bits + 0x7fffu + ((bits >> vec4<u32>(16u)) & vec4<u32>(1u))) >> vec4<u32>(16u);
    let quiet = (bits >> vec4<u32>(16u)) | vec4<u32>(0x40u);
    // Not `value != value`: compilers may assume that it is false.
    let upper = select(rounded, quiet, (bits & vec4<u32>(0x7fffffffu)) > vec4<u32>(0x7f800000u));
    TENSOR[at] = vec2<u32>(upper.x | (upper.y << 16u), upper.z | (upper.w << 16u));
}
