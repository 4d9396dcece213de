// gate_gradients: the gradient of given weights or logits that tokens share, summed over these.
//
//   gradients[row, i] = sum of dstate[t, A_ROWS + i] over the row's tokens t
//
// Bindings (matrices row-major):
//   0  dims            uniform
//   1  dstate          tokens x STATE, [dh, dw or dl] as backward_input wrote them
//   2  gate_gradients  rows x EXPERTS; written
//   group 1, 0  batch, uniform (uniform/batch.wgsl)
// Grid: x = experts, y and z = rows (folded). Workgroup: WORKGROUP threads.
// Workgroup memory: `thread_sums`, WORKGROUP * 4 bytes.
//@ import uniform/batch: batch_tokens
//@ host: A_ROWS, EXPERTS, STATE, WORKGROUP

struct Dims {
    row_tokens: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> dstate: array<f32>;
@group(0) @binding(2) var<storage, read_write> gate_gradients: array<f32>;

var<workgroup> thread_sums: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let tokens = batch_tokens();
    let row = workgroup_id.y + workgroup_id.z * num_workgroups.y;
    if (row > (tokens - 1u) / dims.row_tokens) {
        return;
    }
    let first = row * dims.row_tokens;
    let count = min(dims.row_tokens, tokens - first);
    var sum = 0.0;
    for (var at = local; at < count; at += WORKGROUP) {
        sum += dstate[(first + at) * STATE + A_ROWS + workgroup_id.x];
    }
    thread_sums[local] = sum;
    workgroupBarrier();
    if (local == 0u) {
        for (var other = 1u; other < WORKGROUP; other++) {
            sum += thread_sums[other];
        }
        gate_gradients[row * EXPERTS + workgroup_id.x] = sum;
    }
}
