// G = Z^T X for one block of the gradients, with the library's own outer product.
// Bindings: 0 dims, 1 x (tokens x width), 2 z (tokens x rows), 3 gradients (copies of the layout);
// group 1 has the batch.
// Grid: x = blocks, y = token splits.
struct Dims { width: u32, matrix: u32, splits: u32, rows: u32, copy_vecs: u32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> x: array<x_element>;
@group(0) @binding(2) var<storage, read> z: array<f32>;
@group(0) @binding(3) var<storage, read_write> gradients: array<vec4<f32>>;

var<workgroup> coefficients: array<vec4<f32>, WORKGROUP>;

fn coefficient(index: u32) -> vec4<f32> { return coefficients[index]; }

fn take(token: u32, value: vec4<f32>) -> vec4<f32> { return value; }
fn factor_x(token: u32, row: u32) -> f32 { return z[token * dims.rows + min(row, dims.rows - 1u)]; }

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(workgroup_id) workgroup_id: vec3<u32>, THREAD_ARGUMENTS) {
    let matrix = workgroup_id.y * dims.copy_vecs + dims.matrix;
    outer_x(workgroup_id.x, (dims.width + 3u) / 4u, dims.rows, matrix, workgroup_id.y, local_index(THREAD_NAMES));
}
