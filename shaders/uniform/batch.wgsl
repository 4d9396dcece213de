// What changes from batch to batch, in one uniform that all operations of a model share.

struct Batch {
    tokens: u32,
}

@group(1) @binding(0) var<uniform> batch: Batch;
