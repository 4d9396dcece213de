// Sums are those of one split of the inner dimension: kernel/linear_reduce.wgsl adds them up.
//@ import uniform/batch: batch_tokens
//@ import uniform/linear: target_vecs
//@ host: TARGET_BINDING

// [split][token][vec4 of target columns]
@group(0) @binding(TARGET_BINDING) var<storage, read_write> linear_sums: array<vec4<f32>>;

fn load_before(row: u32, c: u32) -> vec4<f32> { return vec4<f32>(0.0); }

fn finish(split: u32, row: u32, c: u32, before: vec4<f32>, sum: vec4<f32>) {
    linear_sums[(split * batch_tokens() + row) * target_vecs() + c] = sum;
}
