// Sums are complete: with what the epilogue adds they are stored in the target, or added to it.
//@ import access: load_targets, store_targets, targets_element
//@ import epilogue: epilogue
//@ host: ACCUMULATE, TARGET_BINDING

@group(0) @binding(TARGET_BINDING) var<storage, read_write> targets: array<targets_element>;

fn finish(split: u32, row: u32, c: u32, sum: vec4<f32>) {
    let value = epilogue(row, c, sum);
    if (ACCUMULATE) {
        store_targets(row, c, load_targets(row, c) + value);
    } else {
        store_targets(row, c, value);
    }
}
