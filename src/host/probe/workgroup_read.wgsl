// Neighbouring threads read neighbouring vec4s of workgroup memory, eight each in a step.
// Goes after probe/bindings.wgsl. Grid: any number of workgroups.

var<workgroup> tile: array<vec4<u32>, 256>;

@compute @workgroup_size(128)
fn main(@builtin(local_invocation_index) local: u32) {
    tile[local] = source_vecs[local & (dims.vecs - 1u)];
    tile[local + 128u] = source_vecs[local & (dims.vecs - 1u)];
    workgroupBarrier();
    var at = local;
    var sum = vec4<u32>(0u);
    for (var step = 0u; step < dims.steps; step++) {
        for (var read = 0u; read < 8u; read++) {
            sum += tile[(at + read * 37u) & 255u];
        }
        // Other places in each step, which no compiler knows: the sum is zero.
        at += 5u + sum.x;
    }
    // Never true, but a result that nobody might want is not computed.
    if (sum.x + sum.y + sum.z + sum.w == 1u) {
        target_vecs[0].x = at;
    }
}
