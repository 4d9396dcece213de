// silu_backward: the gradients of gate and up of act = gate * sigmoid(gate) * up.
//
// Bindings: 0 span (batch.wgsl), 1 gate, 2 up, 3 d_act, 4 d_gate, 5 d_up (tokens x HIDDEN)
// Grid: x = tokens. Workgroup: 64 threads along a row.
@group(0) @binding(1) var<storage, read> gate: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> up: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> d_act: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> d_gate: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> d_up: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (id.x >= span.tokens) { return; }
    for (var c = local; c < HIDDEN / 4u; c += 64u) {
        let at = id.x * (HIDDEN / 4u) + c;
        let sigmoid = 1.0 / (1.0 + exp(-gate[at]));
        d_gate[at] = d_act[at] * up[at] * sigmoid * (1.0 + gate[at] * (1.0 - sigmoid));
        d_up[at] = d_act[at] * gate[at] * sigmoid;
    }
}
