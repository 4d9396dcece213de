// Goes after access/f16.wgsl. The device rounds to either neighbour. If one of the two inputs of
// pack2x16float is beyond f16's largest number, WGSL leaves the whole result open, so such numbers never
// reach it: a number that rounds to more becomes an infinity, as in IEEE 754, and NaN stays NaN.

fn half_pair_TENSOR(pair: vec2<f32>) -> u32 {
    let bits = bitcast<vec2<u32>>(pair);
    let magnitude = bits & vec2<u32>(0x7fffffffu);
    // 65520 lies halfway between 65504, f16's largest number, and what would be the next.
    let finite = magnitude < vec2<u32>(bitcast<u32>(65520.0));
    let inside = clamp(select(vec2<f32>(0.0), pair, finite), vec2<f32>(-65504.0), vec2<f32>(65504.0));
    let packed = pack2x16float(inside);
    let nan = magnitude > vec2<u32>(0x7f800000u);
    let special = ((bits >> vec2<u32>(16u)) & vec2<u32>(0x8000u))
        | select(vec2<u32>(0x7c00u), vec2<u32>(0x7e00u), nan);
    let low = select(special.x, packed & 0xffffu, finite.x);
    let high = select(special.y, packed >> 16u, finite.y);
    return low | (high << 16u);
}

fn set_vec_TENSOR(at: u32, value: vec4<f32>) {
    TENSOR[at] = vec2<u32>(half_pair_TENSOR(value.xy), half_pair_TENSOR(value.zw));
}
