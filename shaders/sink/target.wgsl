// Sums are complete: with what the epilogue adds they are stored in the target, or added to it.
//@ import access: load_targets, store_targets, targets_element
//@ import epilogue: epilogue
//@ import uniform/batch: batch_tokens
//@ import uniform/linear: target_vecs
//@ host: ACCUMULATE, TARGET_BINDING

@group(0) @binding(TARGET_BINDING) var<storage, read_write> targets: array<targets_element>;

// What a sum is added to, for finish(). It has a function of its own so that a kernel can load several before it
// stores the first. Zero past the end.
fn load_before(row: u32, c: u32) -> vec4<f32> {
    if (ACCUMULATE && row < batch_tokens() && c < target_vecs()) {
        return load_targets(row, c);
    }
    return vec4<f32>(0.0);
}

fn finish(split: u32, row: u32, c: u32, before: vec4<f32>, sum: vec4<f32>) {
    let value = epilogue(row, c, sum);
    if (ACCUMULATE) {
        store_targets(row, c, before + value);
    } else {
        store_targets(row, c, value);
    }
}
