// silu: act = gate * sigmoid(gate) * up, element by element.
//
// Bindings: 0 span (batch.wgsl), 1 gate, 2 up, 3 act (tokens x HIDDEN)
// Grid: x = tokens. Workgroup: 64 threads along a row.
@group(0) @binding(1) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> up: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> act: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (id.x >= span.tokens) { return; }
    for (var c = local; c < HIDDEN / 4u; c += 64u) {
        let at = id.x * (HIDDEN / 4u) + c;
        act[at] = gate[at] / (1.0 + exp(-gate[at])) * up[at];
    }
}
