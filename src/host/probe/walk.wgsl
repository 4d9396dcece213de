// All threads side by side read 16 bytes each in a step, and none begins a step before the last one's bytes
// have come: they say how far to go. So the bytes in flight are 16 for each thread. A workgroup's next bytes lie one
// workgroup's share behind those that all of them read in this step: where the source is short, and all begin again soon,
// what a core reads next was then read on another core, and its own nearest cache has it not.
// Goes after probe/bindings.wgsl. Grid: any number of workgroups.

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    var at = dims.first + id.x;
    for (var step = 0u; step < dims.steps; step++) {
        let read = source_vecs[at & (dims.vecs - 1u)];
        at += 64u * (grid.x + 1u) + read.x + read.y + read.z + read.w;
    }
    // Never true, but a result that nobody might want is not computed.
    if (at == 0xffffffffu) {
        target_vecs[0].x = at;
    }
}
