// linear_reduce: adds up what the splits of kernel/linear.wgsl or kernel/linear_direct.wgsl left, always in
// the same order.
//
// Bindings (matrices row-major):
//   0  dims         uniform (uniform/linear.wgsl)
//   1  linear_sums  [split][token][vec4 of target columns]
//   2  targets      tokens x target_width; added to when ACCUMULATE (sink/target.wgsl)
//   3  bias         d_out; only where there is one (epilogue/bias.wgsl)
//   group 1, 0      batch, uniform (uniform/batch.wgsl)
// Grid: x = blocks of WORKGROUP vec4s of target columns, y and z = tokens (folded). Workgroup: WORKGROUP
// threads, no memory.
//@ import product: add_splits
//@ import sink: finish, load_before
//@ import uniform/batch: batch_tokens
//@ import uniform/linear: dims, target_vecs
//@ host: WORKGROUP

@group(0) @binding(1) var<storage, read> linear_sums: array<vec4<f32>>;

fn load_split(index: u32) -> vec4<f32> { return linear_sums[index]; }

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let token = workgroup_id.y + workgroup_id.z * num_workgroups.y;
    let c = workgroup_id.x * WORKGROUP + local;
    if (token >= batch_tokens() || c >= target_vecs()) {
        return;
    }
    let at = token * target_vecs() + c;
    let before = load_before(token, c);
    finish(0u, token, c, before, add_splits(at, batch_tokens() * target_vecs(), dims.splits));
}
