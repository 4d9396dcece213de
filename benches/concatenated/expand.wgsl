// Y = Z M: the concatenated form's other matrix product, with the library's own expand.
// Bindings: 0 dims, 1 z (tokens x ROWS), 2 parameters, 3 y (tokens x outputs).
// Grid: x = output slices, y and z = token tiles (folded).
struct Dims { tokens: u32, groups: u32, matrix: u32, slice_groups: u32, rows: u32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> z: array<f32>;
@group(0) @binding(2) var<storage, read> parameters: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> y: array<vec4<f32>>;

// [row][quad], each a vec4 over four tokens.
var<workgroup> tile: array<vec4<f32>, ROWS * QUADS>;

fn group_parameters(at: u32) -> vec4<f32> { return parameters[at]; }
fn expand_rows() -> u32 { return dims.rows; }
fn stage(first_row: u32, count: u32, local: u32) {}
fn coefficient(index: u32) -> vec4<f32> { return tile[index]; }
fn target_groups() -> u32 { return dims.groups; }
fn expand_matrix() -> u32 { return dims.matrix; }
fn load_target(row: u32, c: u32) -> vec4<f32> { return y[row * dims.groups + c]; }
fn store_target(row: u32, c: u32, value: vec4<f32>) { y[row * dims.groups + c] = value; }

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) grid: vec3<u32>,
    thread: Thread,
) {
    let local = local_index(thread);
    let first = (group.y + group.z * grid.y) * 4u * QUADS;
    if (first >= dims.tokens) { return; }
    for (var item = local; item < ROWS * QUADS; item += WORKGROUP) {
        let token = first + 4u * (item % QUADS);
        let last = dims.tokens - 1u;
        let row = item / QUADS;
        tile[item] = vec4<f32>(
            z[min(token, last) * ROWS + row],
            z[min(token + 1u, last) * ROWS + row],
            z[min(token + 2u, last) * ROWS + row],
            z[min(token + 3u, last) * ROWS + row],
        );
    }
    workgroupBarrier();
    let begin = group.x * dims.slice_groups;
    expand(first, dims.tokens, begin, min(begin + dims.slice_groups, dims.groups), local);
}
