// Eight independent chains of vec4 multiply-adds in registers, four of each in a step, as in a matrix product: what is
// added to is a register of its own, and four of them in a row share a factor, which no register file is short of ports
// for. The factors come from memory, so that nothing is known when this is compiled.
// Goes after probe/bindings.wgsl. Grid: any number of workgroups.

@compute @workgroup_size(128)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let factor = vec4<f32>(source_vecs[id.x & (dims.vecs - 1u)]);
    let term = factor + 1.0;
    let x = factor.xxxx;
    let y = factor.yyyy;
    let z = factor.zzzz;
    let w = factor.wwww;
    var a = term;
    var b = term + 1.0;
    var c = term + 2.0;
    var d = term + 3.0;
    var e = term + 4.0;
    var f = term + 5.0;
    var g = term + 6.0;
    var h = term + 7.0;
    for (var step = 0u; step < dims.steps; step++) {
        a = fma(x, term, a); b = fma(y, term, b); c = fma(z, term, c); d = fma(w, term, d);
        e = fma(x, term, e); f = fma(y, term, f); g = fma(z, term, g); h = fma(w, term, h);
        a = fma(x, term, a); b = fma(y, term, b); c = fma(z, term, c); d = fma(w, term, d);
        e = fma(x, term, e); f = fma(y, term, f); g = fma(z, term, g); h = fma(w, term, h);
        a = fma(x, term, a); b = fma(y, term, b); c = fma(z, term, c); d = fma(w, term, d);
        e = fma(x, term, e); f = fma(y, term, f); g = fma(z, term, g); h = fma(w, term, h);
        a = fma(x, term, a); b = fma(y, term, b); c = fma(z, term, c); d = fma(w, term, d);
        e = fma(x, term, e); f = fma(y, term, f); g = fma(z, term, g); h = fma(w, term, h);
    }
    // Never true, but a result that nobody might want is not computed.
    let sum = a + b + c + d + e + f + g + h;
    if (sum.x + sum.y + sum.z + sum.w == -1.0) {
        target_vecs[0].x = 1u;
    }
}
