// norm: x' = x + added, and h = x' / sqrt(mean(x'^2) + EPSILON) * weight for every token (RMSNorm).
//
// Bindings: 0 span (batch.wgsl), 1 weight (WIDTH), 2 x, 3 added (tokens x WIDTH), 4 sum (x'), 5 h
// Grid: x = tokens. Workgroup: 64 threads along a row. Workgroup memory: `partial`, 64 sums.
@group(0) @binding(1) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> added: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> sum: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> h: array<vec4<f32>>;

var<workgroup> partial: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (id.x >= span.tokens) { return; }
    let row = id.x * (WIDTH / 4u);
    var squares = 0.0;
    for (var c = local; c < WIDTH / 4u; c += 64u) {
        let value = x[row + c] + added[row + c];
        sum[row + c] = value;
        squares += dot(value, value);
    }
    partial[local] = squares;
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < 64u; i++) { total += partial[i]; }
    let scale = inverseSqrt(total / f32(WIDTH) + EPSILON);
    for (var c = local; c < WIDTH / 4u; c += 64u) {
        h[row + c] = sum[row + c] * scale * weight[c];
    }
}
