// Eight independent chains of vec4 multiply-adds in registers, 256 rounds, as in a matrix product: what is added to is
// a register of its own, and four of them in a row share a factor. The factors come from memory so that nothing is known
// when this is compiled.
// Grid: any number of workgroups.
struct Dims { first: u32, groups: u32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let factor = source[id.x % dims.groups];
    let term = source[(id.x + 1u) % dims.groups];
    let x = factor.xxxx; let y = factor.yyyy; let z = factor.zzzz; let w = factor.wwww;
    var a = term; var b = term + 1.0; var c = term + 2.0; var d = term + 3.0;
    var e = term + 4.0; var f = term + 5.0; var g = term + 6.0; var h = term + 7.0;
    for (var round = 0u; round < 256u; round++) {
        a = fma(x, term, a); b = fma(y, term, b); c = fma(z, term, c); d = fma(w, term, d);
        e = fma(x, term, e); f = fma(y, term, f); g = fma(z, term, g); h = fma(w, term, h);
    }
    result[id.x % dims.groups] = a + b + c + d + e + f + g + h;
}
