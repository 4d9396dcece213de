// to = from, `groups` vec4s from `first` on, all threads side by side, 16 bytes each at a time.
// Grid: any number of workgroups.
struct Dims { first: u32, groups: u32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> source: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> result: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    for (var at = id.x; at < dims.groups; at += 64u * grid.x) {
        result[dims.first + at] = source[dims.first + at];
    }
}
