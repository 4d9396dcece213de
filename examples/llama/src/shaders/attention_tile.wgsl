// What the attention shaders share: vectors of four, of which a row of a head has VECS. A workgroup has TILE tokens, four groups of
// four.
const VECS = HEAD_WIDTH / 4u;
const FOUR = vec4<u32>(0u, 1u, 2u, 3u);

// Each element of `a` times `b`.
fn outer(a: vec4<f32>, b: vec4<f32>) -> mat4x4<f32> {
    return mat4x4<f32>(a.x * b, a.y * b, a.z * b, a.w * b);
}
