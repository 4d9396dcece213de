// gradient_norm: sums of squares of the packed gradients, one per workgroup, always in the same
// order: each thread strides over the buffer, then thread 0 adds up the threads.
//
// Bindings:
//   0  hyper      uniform (shared with adamw.wgsl; only `groups` is read)
//   1  gradients  the packed layout
//   2  squares    WORKGROUP partial sums, one per workgroup
// Grid: x = WORKGROUP workgroups. Workgroup: WORKGROUP threads.
// Workgroup memory: `thread_squares`, WORKGROUP * 4 bytes.

@group(0) @binding(0) var<uniform> hyper: Hyper;
@group(0) @binding(1) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> squares: array<f32>;

var<workgroup> thread_squares: array<f32, WORKGROUP>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    var sum = vec4<f32>(0.0);
    for (var at = group.x * WORKGROUP + local; at < hyper.groups; at += WORKGROUP * WORKGROUP) {
        sum += gradients[at] * gradients[at];
    }
    thread_squares[local] = (sum.x + sum.y) + (sum.z + sum.w);
    workgroupBarrier();
    if (local == 0u) {
        var total = 0.0;
        for (var thread = 0u; thread < WORKGROUP; thread++) {
            total += thread_squares[thread];
        }
        squares[group.x] = total;
    }
}
