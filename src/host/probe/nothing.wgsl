// One thread adds one to a number, so that each dispatch waits for the one before it.
// Goes after probe/bindings.wgsl. Grid: one workgroup.

@compute @workgroup_size(1)
fn main() {
    target_vecs[0].x += 1u;
}
