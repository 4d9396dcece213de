// splits: adds up what the splits of a sum have left, always in the order of the splits. Four are loaded before
// the first of them is added, so that their loads are in flight together.
//
// The kernel provides:
//   load_split(index) -> vec4        what a split has left
//@ kernel: load_split

// The first split's lies at `first`, and each other's `stride` after the one before. There is at least one.
fn add_splits(first: u32, stride: u32, splits: u32) -> vec4<f32> {
    let last = splits - 1u;
    var sum = vec4<f32>(0.0);
    for (var split = 0u; split < splits; split += 4u) {
        // Past the end the last one is loaded again, and not added.
        let value0 = load_split(first + split * stride);
        let value1 = load_split(first + min(split + 1u, last) * stride);
        let value2 = load_split(first + min(split + 2u, last) * stride);
        let value3 = load_split(first + min(split + 3u, last) * stride);
        sum = select(sum + value0, value0, split == 0u);
        sum = select(sum, sum + value1, split + 1u < splits);
        sum = select(sum, sum + value2, split + 2u < splits);
        sum = select(sum, sum + value3, split + 3u < splits);
    }
    return sum;
}
