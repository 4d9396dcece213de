// Y = Z M: the concatenated form's other matrix product, with the library's own expand.
// Bindings: 0 dims, 1 z (tokens x rows), 2 parameters, 3 y (tokens x width); group 1 has the batch.
// Grid: x = output slices, y and z = token tiles (folded).
struct Dims { width: u32, matrix: u32, slice_vecs: u32, rows: u32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<y_element>;

// [staged row][quad]: each vec4 has the coefficients of four tokens.
var<workgroup> tile: array<vec4<f32>, STAGED_ROWS * QUADS>;

fn vec_parameters(at: u32) -> vec4<f32> { return parameters[at]; }
fn expand_rows() -> u32 { return dims.rows; }
fn stage(first_token: u32, first_row: u32, count: u32, local: u32) {
    for (var item = local; item < count * QUADS; item += WORKGROUP) {
        let token = first_token + 4u * (item % QUADS);
        let last = batch.tokens - 1u;
        let row = first_row + item / QUADS;
        tile[item] = vec4<f32>(
            z[min(token, last) * dims.rows + row],
            z[min(token + 1u, last) * dims.rows + row],
            z[min(token + 2u, last) * dims.rows + row],
            z[min(token + 3u, last) * dims.rows + row],
        );
    }
}
fn coefficient(index: u32) -> vec4<f32> { return tile[index]; }
fn target_vecs() -> u32 { return (dims.width + 3u) / 4u; }
fn expand_matrix() -> u32 { return dims.matrix; }
fn load_target(row: u32, c: u32) -> vec4<f32> { return load_y(row, c); }
fn store_target(row: u32, c: u32, value: vec4<f32>) { store_y(row, c, value); }

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    THREAD_ARGUMENTS,
) {
    let local = local_index(THREAD_NAMES);
    let first_token = (workgroup_id.y + workgroup_id.z * num_workgroups.y) * 4u * QUADS;
    if (first_token >= batch.tokens) { return; }
    let begin = workgroup_id.x * dims.slice_vecs;
    expand(first_token, batch.tokens, begin, min(begin + dims.slice_vecs, target_vecs()), local);
}
