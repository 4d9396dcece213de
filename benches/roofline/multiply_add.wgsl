// Eight independent chains of vec4 multiply-adds in registers, 256 rounds; the factors come from memory
// so that nothing is known when this is compiled.
// Grid: any number of workgroups.
struct Dims { first: u32, groups: u32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let factor = source[id.x % dims.groups];
    let term = source[(id.x + 1u) % dims.groups];
    var a = term; var b = term + 1.0; var c = term + 2.0; var d = term + 3.0;
    var e = term + 4.0; var f = term + 5.0; var g = term + 6.0; var h = term + 7.0;
    for (var round = 0u; round < 256u; round++) {
        a = fma(a, factor, term); b = fma(b, factor, term); c = fma(c, factor, term); d = fma(d, factor, term);
        e = fma(e, factor, term); f = fma(f, factor, term); g = fma(g, factor, term); h = fma(h, factor, term);
    }
    result[id.x % dims.groups] = a + b + c + d + e + f + g + h;
}
