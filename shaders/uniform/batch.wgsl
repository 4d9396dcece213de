// The number of tokens, which changes from batch to batch. All operations of a model share this uniform.

struct Batch {
    tokens: u32,
}

@group(1) @binding(0) var<uniform> batch: Batch;
