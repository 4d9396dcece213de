// target = source, all threads side by side, 16 bytes each in a step.
// Goes after probe/bindings.wgsl. Grid: any number of workgroups.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    for (var step = 0u; step < dims.steps; step++) {
        let at = (dims.first + id.x + step * 64u * grid.x) & (dims.vecs - 1u);
        target_vecs[at] = source_vecs[at];
    }
}
