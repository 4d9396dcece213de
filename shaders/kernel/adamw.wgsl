// adamw: one step of AdamW (decoupled weight decay, Loshchilov and Hutter 2019; PyTorch's order of
// operations) over the packed parameters.
//
//   g = scaled and clipped gradient (optimiser/clip_norm.wgsl, optimiser/clip_none.wgsl)
//   parameter *= 1 - lr * weight_decay       (lr and weight_decay of its group)
//   m = beta1 m + (1 - beta1) g            v = beta2 v + (1 - beta2) g^2
//   parameter -= lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + epsilon)
//
// Bindings (tensors 1 to 3 in the packed layout):
//   0  dims        uniform
//   1  parameters  updated
//   2  gradients
//   3  moments     m, then v: twice the layout; updated
//   4  status      the gradients' norm; only when clipping (optimiser/clip_norm.wgsl)
//   next  groups   two bits for four parameters; only where groups differ (optimiser/groups_given.wgsl)
//   group 1, 0     hyper, uniform (uniform/hyper.wgsl)
// Grid: x and y = vec4s of the layout (folded). Workgroup: WORKGROUP threads.
// Workgroup memory: none.
//@ import optimiser: clip, group_of, skipped
//@ import uniform/hyper: hyper
//@ host: WORKGROUP

struct Dims {
    // vec4s in the packed layout
    vecs: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read_write> parameters: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> moments: array<vec4<f32>>;

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let at = (workgroup_id.x + workgroup_id.y * num_workgroups.x) * WORKGROUP + local;
    if (at >= dims.vecs || skipped()) {
        return;
    }
    let gradient = clip(gradients[at]);
    let first = hyper.beta1 * moments[at] + (1.0 - hyper.beta1) * gradient;
    let second = hyper.beta2 * moments[dims.vecs + at] + (1.0 - hyper.beta2) * gradient * gradient;
    moments[at] = first;
    moments[dims.vecs + at] = second;
    let group = group_of(at);
    parameters[at] = hyper.decay[group] * parameters[at]
        - hyper.step_size[group] * first / (sqrt(second) * hyper.second_scale + hyper.epsilon);
}
