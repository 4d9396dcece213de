// backward_params_reduce: gradients (+)= the copies that the token splits of backward_params wrote,
// added in the order of the splits.
//
// Bindings:
//   0  dims       uniform
//   1  copies     splits copies of the packed layout
//   2  gradients  the packed layout; added to when ACCUMULATE
// Grid: x and y = vec4s of the layout (folded). Workgroup: WORKGROUP threads, no memory.
//@ import product: add_splits
//@ host: ACCUMULATE, WORKGROUP

struct Dims {
    // vec4s in the packed layout
    vecs: u32,
    splits: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> copies: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> gradients: array<vec4<f32>>;

fn load_split(index: u32) -> vec4<f32> { return copies[index]; }

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WORKGROUP + local;
    if (at >= dims.vecs) {
        return;
    }
    if (ACCUMULATE) {
        // Loaded first: it takes as long as the copies.
        let before = gradients[at];
        gradients[at] = before + add_splits(at, dims.vecs, dims.splits);
    } else {
        gradients[at] = add_splits(at, dims.vecs, dims.splits);
    }
}
