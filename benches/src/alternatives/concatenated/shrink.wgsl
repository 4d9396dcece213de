// P = X M^T: one of the concatenated form's two matrix products, with the library's own shrink.
// Bindings: 0 dims, 1 x (tokens x width), 2 parameters, 3 p (tokens x columns); group 1 has the batch.
// Grid: x = blocks of PASS_COLUMNS columns, y and z = token tiles (folded).
struct Dims { width: u32, matrix: u32, columns: u32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> x: array<x_element>;
@group(0) @binding(2) var<storage, read> parameters: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> p: array<f32>;

const COLUMNS = PASS_COLUMNS;
var<private> first_column: u32;
var<private> first_token: u32;

fn vec_parameters(at: u32) -> vec4<f32> { return parameters[at]; }
fn load_source(row: u32, k: u32) -> vec4<f32> { return load_x(row, k); }
fn source_vecs() -> u32 { return (dims.width + 3u) / 4u; }
fn source_begin() -> u32 { return 0u; }
fn source_end() -> u32 { return source_vecs(); }
fn shrink_matrix() -> u32 { return dims.matrix + first_column * source_vecs(); }
fn shrunk(column: u32, quad: u32, value: vec4<f32>) {
    if (first_column + column < dims.columns) {
        for (var token = 0u; token < 4u; token++) {
            let row = first_token + 4u * quad + token;
            if (row < batch.tokens) { p[row * dims.columns + first_column + column] = value[token]; }
        }
    }
}
fn absorb(first_token: u32, first: u32, count: u32, local: u32) {}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    THREAD_ARGUMENTS,
) {
    let local = local_index(THREAD_NAMES);
    first_column = workgroup_id.x * PASS_COLUMNS;
    first_token = (workgroup_id.y + workgroup_id.z * num_workgroups.y) * 4u * QUADS;
    if (first_token < batch.tokens) { shrink(first_token, batch.tokens, local); }
}
