// The operations between the concatenated form's products, each a separate dispatch.
// Bindings: 0 dims, 1 and 2 inputs, 3 the result; group 1 has the batch.
// Grid: x and y = rows of the result / 64 (folded).
struct Dims { scaling: f32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> left: array<f32>;
@group(0) @binding(2) var<storage, read> right: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

// ROUTED is EXPERTS, or 0 if the layer has no router.
const STATE = RANK + ROUTED;

// right = [h, w], starting at `row` for a token.
fn weight(row: u32, expert: u32) -> f32 {
    if (ROUTED == 0u) { return 1.0; }
    return right[row + RANK + expert];
}

// left = [h, l]; result = [h, w]. One thread per token.
fn softmax(token: u32) {
    let row = token * STATE;
    var largest = left[row + RANK];
    for (var i = 1u; i < ROUTED; i++) { largest = max(largest, left[row + RANK + i]); }
    var total = 0.0;
    for (var i = 0u; i < ROUTED; i++) { total += exp(left[row + RANK + i] - largest); }
    for (var i = 0u; i < ROUTED; i++) { result[row + RANK + i] = exp(left[row + RANK + i] - largest) / total; }
    for (var j = 0u; j < RANK; j++) { result[row + j] = left[row + j]; }
}

// right = [h, w]; result = s w_i h_j. One thread per element.
fn scale(item: u32) {
    let row = item / (EXPERTS * RANK) * STATE;
    let column = item % (EXPERTS * RANK);
    result[item] = dims.scaling * weight(row, column / RANK) * right[row + column % RANK];
}

// left = v / s, right = [h, w]; result = [dh, dl]. One thread per token.
fn backward(token: u32) {
    let row = token * STATE;
    let v = token * EXPERTS * RANK;
    var mean = 0.0;
    for (var i = 0u; i < ROUTED; i++) {
        var dw = 0.0;
        for (var j = 0u; j < RANK; j++) { dw += left[v + i * RANK + j] * right[row + j]; }
        result[row + RANK + i] = dims.scaling * dw;
        mean += weight(row, i) * dims.scaling * dw;
    }
    for (var i = 0u; i < ROUTED; i++) {
        result[row + RANK + i] = weight(row, i) * (result[row + RANK + i] - mean);
    }
    for (var j = 0u; j < RANK; j++) {
        var sum = 0.0;
        for (var i = 0u; i < EXPERTS; i++) { sum += weight(row, i) * left[v + i * RANK + j]; }
        result[row + j] = dims.scaling * sum;
    }
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) grid: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    let item = (group.x + group.y * grid.x) * 64u + local;
    if (item < batch.tokens * ROWS_PER_TOKEN) { OPERATION(item); }
}
