// C (+)= op(A) op(B), one thread per element of C, as one would write a first version.
// TRANSPOSE_A: A is stored inner x rows; TRANSPOSE_B: B is stored columns x inner.
// Grid: x = columns / 64, y and z = rows (folded).
struct Dims { rows: u32, columns: u32, inner: u32, expert: u32, experts: u32, factor: f32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> c: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>) {
    let column = id.x;
    let row = id.y + id.z * grid.y;
    if (column >= dims.columns || row >= dims.rows) { return; }
    var sum = 0.0;
    for (var k = 0u; k < dims.inner; k++) {
        let left = select(row * dims.inner + k, k * dims.rows + row, TRANSPOSE_A);
        let right = select(k * dims.columns + column, column * dims.inner + k, TRANSPOSE_B);
        sum += a[left] * b[right];
    }
    if (ACCUMULATE) { sum += c[row * dims.columns + column]; }
    c[row * dims.columns + column] = sum;
}
