// backward_params_reduce: gradients (+)= the copies that the token splits of backward_params wrote,
// added in the order of the splits.
//
// Bindings:
//   0  dims       uniform
//   1  copies     splits copies of the packed layout
//   2  gradients  the packed layout; added to when ACCUMULATE
// Grid: x and y = vec4 groups of the layout (folded). Workgroup: WORKGROUP threads, no memory.

struct Dims {
    // vec4 groups in the packed layout
    groups: u32,
    splits: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> copies: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> gradients: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = (group.x + group.y * grid.x) * WORKGROUP + local;
    if (at >= dims.groups) {
        return;
    }
    var sum = copies[at];
    for (var split = 1u; split < dims.splits; split++) {
        sum += copies[split * dims.groups + at];
    }
    if (ACCUMULATE) {
        gradients[at] += sum;
    } else {
        gradients[at] = sum;
    }
}
