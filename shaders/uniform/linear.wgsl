// Shared by the kernels of the frozen layer: their uniform, and the part of the inner dimension that a
// workgroup adds up.

struct Dims {
    source_width: u32,
    target_width: u32,
    // elements from the start of a row to the start of the next
    source_stride: u32,
    target_stride: u32,
    // vec4s of the inner dimension in one split
    split_vecs: u32,
    splits: u32,
    // the first block of tokens of this dispatch
    first_tile: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;

fn target_vecs() -> u32 { return (dims.target_width + 3u) / 4u; }
fn inner_vecs() -> u32 { return (dims.source_width + 3u) / 4u; }
fn split_begin(split: u32) -> u32 { return split * dims.split_vecs; }
fn split_end(split: u32) -> u32 { return min(split_begin(split) + dims.split_vecs, inner_vecs()); }
