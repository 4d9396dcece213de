// Y = Z M: the concatenated form's other matrix product, with the library's own expand.
// Bindings: 0 dims, 1 z (tokens x rows), 2 parameters, 3 y (tokens x width); group 1 has the batch.
// Grid: x = output slices, y and z = token tiles (folded).
struct Dims { width: u32, matrix: u32, slice_groups: u32, rows: u32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<y_element>;

// [row of the chunk][quad], each a vec4 over four tokens.
var<workgroup> tile: array<vec4<f32>, CHUNK * QUADS>;
var<private> first_token: u32;

fn group_parameters(at: u32) -> vec4<f32> { return parameters[at]; }
fn expand_rows() -> u32 { return dims.rows; }
fn stage(first_row: u32, count: u32, local: u32) {
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
fn target_groups() -> u32 { return (dims.width + 3u) / 4u; }
fn expand_matrix() -> u32 { return dims.matrix; }
fn load_target(row: u32, c: u32) -> vec4<f32> { return load_y(row, c); }
fn store_target(row: u32, c: u32, value: vec4<f32>) { store_y(row, c, value); }

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    THREAD_ARGUMENTS,
) {
    let local = local_index(THREAD_NAMES);
    first_token = (group.y + group.z * grid.y) * 4u * QUADS;
    if (first_token >= batch.tokens) { return; }
    let begin = group.x * dims.slice_groups;
    expand(first_token, batch.tokens, begin, min(begin + dims.slice_groups, target_groups()), local);
}
