// result = OPERATION, one thread per element: `at` is the element, `gate` its row's entry in column
// `expert` of a rows x experts matrix.
// Grid: x = columns / 64, y = rows.
struct Dims { rows: u32, columns: u32, inner: u32, expert: u32, experts: u32, factor: f32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> left: array<f32>;
@group(0) @binding(2) var<storage, read> right: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.columns) { return; }
    let at = id.y * dims.columns + id.x;
    let gate = id.y * dims.experts + dims.expert;
    result[at] = OPERATION;
}
