// What all probes are bound to. The source is all zeros, which no compiler knows.

struct Dims {
    // vec4s of the source, a power of two
    vecs: u32,
    // rounds of a thread
    steps: u32,
    // the vec4 at which the first thread begins
    first: u32,
    unused: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> source_vecs: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> target_vecs: array<vec4<u32>>;
