// result = OPERATION, one thread per element. `at` is the index of the element, `gate` that of its row's
// entry in column `expert` of a rows x experts matrix.
// Grid: x = columns / 64, y and z = rows (folded).
struct Dims { rows: u32, columns: u32, inner: u32, expert: u32, experts: u32, factor: f32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> left: array<f32>;
@group(0) @binding(2) var<storage, read> right: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let row = id.y + id.z * grid.y;
    if (id.x >= dims.columns || row >= dims.rows) { return; }
    let at = row * dims.columns + id.x;
    let gate = row * dims.experts + dims.expert;
    result[at] = OPERATION;
}
