// Goes after access/f16.wgsl. The device rounds to either neighbour. If one of the two inputs of
// pack2x16float is beyond f16's largest number, WGSL leaves the whole result open, so such numbers never
// reach it: it packs that number instead, whose bits lie just below those of infinity and, further on, NaN.
// A number that rounds to more becomes an infinity, as in IEEE 754, and NaN stays NaN.

fn set_vec_TENSOR(at: u32, value: vec4<f32>) {
    let bits = bitcast<vec4<u32>>(value);
    let magnitude = bits & vec4<u32>(0x7fffffffu);
    let least = min(magnitude, vec4<u32>(bitcast<u32>(65504.0)));
    let inside = bitcast<vec4<f32>>(least | (bits & vec4<u32>(0x80000000u)));
    // 65520 lies halfway between 65504, f16's largest number, and what would be the next.
    let infinite = select(vec4<u32>(0u), vec4<u32>(1u), magnitude >= vec4<u32>(bitcast<u32>(65520.0)));
    let nan = select(vec4<u32>(0u), vec4<u32>(0x200u), magnitude > vec4<u32>(0x7f800000u));
    let beyond = infinite + nan;
    TENSOR[at] = vec2<u32>(
        pack2x16float(inside.xy) + (beyond.x | (beyond.y << 16u)),
        pack2x16float(inside.zw) + (beyond.z | (beyond.w << 16u)),
    );
}
