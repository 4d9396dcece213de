// norm_backward: what reaches x of h = x * s * weight, s = 1 / sqrt(mean(x^2) + EPSILON), is added to d where ADDING, and
// otherwise overwrites it:
// d (+)= s * weight * dh - x * s^3 / WIDTH * sum(dh * weight * x).
//
// Bindings: 0 span (batch.wgsl), 1 weight (WIDTH), 2 x, 3 dh, 4 d (tokens x WIDTH)
// Grid: x = tokens. Workgroup: 64 threads along a row. Workgroup memory: `partial`, 64 pairs of sums.
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> dh: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> d: array<vec4<f32>>;

var<workgroup> partial: array<vec2<f32>, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (id.x >= span.tokens) { return; }
    let row = id.x * (WIDTH / 4u);
    var sums = vec2<f32>(0.0);
    for (var c = local; c < WIDTH / 4u; c += 64u) {
        let value = x[row + c];
        sums += vec2<f32>(dot(value, value), dot(dh[row + c] * weight[c], value));
    }
    partial[local] = sums;
    workgroupBarrier();
    var total = vec2<f32>(0.0);
    for (var i = 0u; i < 64u; i++) { total += partial[i]; }
    let s = inverseSqrt(total.x / f32(WIDTH) + EPSILON);
    let back = s * s * s * total.y / f32(WIDTH);
    for (var c = local; c < WIDTH / 4u; c += 64u) {
        let own = s * weight[c] * dh[row + c] - back * x[row + c];
        if (ADDING) { d[row + c] += own; } else { d[row + c] = own; }
    }
}
