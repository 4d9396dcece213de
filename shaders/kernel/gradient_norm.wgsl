// gradient_norm: sums of squares of the packed gradients, one per workgroup, always added in the same order.
// Each thread strides over the buffer, four loads at a time; then optimiser/norm_threads.wgsl adds up the sums of
// all threads.
//
// Bindings:
//   0  dims       uniform
//   1  gradients  the packed layout
//   2  squares    the partial sums of all buffers of gradients: for each buffer WORKGROUP, one per workgroup
// Grid: x = WORKGROUP workgroups. Workgroup: WORKGROUP threads.
// Workgroup memory: `thread_squares`, WORKGROUP * 16 bytes (optimiser/norm_threads.wgsl).
//@ import optimiser/norm: DOWN, LARGE, SMALL, Squares, UP
//@ import optimiser/norm_threads: add_threads
//@ host: WORKGROUP

struct Dims {
    // vec4s in the packed layout
    vecs: u32,
    // where this buffer's partial sums start
    first_square: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> squares: array<Squares>;

// Threads of all workgroups.
const THREADS = WORKGROUP * WORKGROUP;

// The sums of a thread: one for each class of numbers.
struct Sums {
    small: vec4<f32>,
    middle: vec4<f32>,
    large: vec4<f32>,
    largest: vec4<u32>,
}

fn add_squares(gradient: vec4<f32>, sums: ptr<function, Sums>) {
    let zero = vec4<f32>(0.0);
    let is_small = abs(gradient) < vec4<f32>(SMALL);
    let is_large = abs(gradient) >= vec4<f32>(LARGE);
    let unit = select(select(vec4<f32>(1.0), vec4<f32>(UP), is_small), vec4<f32>(DOWN), is_large);
    let scaled = gradient * unit;
    let square = scaled * scaled;
    (*sums).small += select(zero, square, is_small);
    (*sums).middle += select(square, zero, is_small | is_large);
    (*sums).large += select(zero, square, is_large);
    (*sums).largest = max((*sums).largest, bitcast<vec4<u32>>(gradient) & vec4<u32>(0x7fffffffu));
}

// Zeros past the end.
fn load_gradient(at: u32) -> vec4<f32> {
    return select(vec4<f32>(0.0), gradients[min(at, dims.vecs - 1u)], at < dims.vecs);
}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(local_invocation_index) local: u32,
) {
    let zero = vec4<f32>(0.0);
    var sums = Sums(zero, zero, zero, vec4<u32>(0u));
    for (var at = workgroup_id.x * WORKGROUP + local; at < dims.vecs; at += 4u * THREADS) {
        let gradient0 = load_gradient(at);
        let gradient1 = load_gradient(at + THREADS);
        let gradient2 = load_gradient(at + 2u * THREADS);
        let gradient3 = load_gradient(at + 3u * THREADS);
        add_squares(gradient0, &sums);
        add_squares(gradient1, &sums);
        add_squares(gradient2, &sums);
        add_squares(gradient3, &sums);
    }
    let own = Squares(
        (sums.small.x + sums.small.y) + (sums.small.z + sums.small.w),
        (sums.middle.x + sums.middle.y) + (sums.middle.z + sums.middle.w),
        (sums.large.x + sums.large.y) + (sums.large.z + sums.large.w),
        max(max(sums.largest.x, sums.largest.y), max(sums.largest.z, sums.largest.w)),
    );
    let all = add_threads(own, local);
    if (local == 0u) {
        squares[dims.first_square + workgroup_id.x] = all;
    }
}
