// What changes from batch to batch. All operations of a model share this uniform.

struct Batch {
    tokens: u32,
    // of dropout: the seed, and the training step
    seed_low: u32,
    seed_high: u32,
    step: u32,
}

@group(1) @binding(0) var<uniform> batch: Batch;

// The tokens of the batch: at most 2^31, whatever the buffer holds, so that no loop over tokens wraps.
fn batch_tokens() -> u32 { return min(batch.tokens, 0x80000000u); }
