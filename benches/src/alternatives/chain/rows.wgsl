// One thread for each of many short rows: softmax, its backward, and the inner products for the gradient of a
// gate.
// Grid: x = rows / 64.
struct Dims { rows: u32, columns: u32, inner: u32, expert: u32, experts: u32, factor: f32 }
@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> left: array<f32>;
@group(0) @binding(2) var<storage, read> right: array<f32>;
@group(0) @binding(3) var<storage, read_write> result: array<f32>;

// result = softmax(left)
fn softmax(row: u32) {
    var largest = left[row * dims.columns];
    for (var i = 1u; i < dims.columns; i++) { largest = max(largest, left[row * dims.columns + i]); }
    var total = 0.0;
    for (var i = 0u; i < dims.columns; i++) { total += exp(left[row * dims.columns + i] - largest); }
    for (var i = 0u; i < dims.columns; i++) {
        result[row * dims.columns + i] = exp(left[row * dims.columns + i] - largest) / total;
    }
}

// result = left * (right - sum(left * right)), where left is the softmax
fn softmax_backward(row: u32) {
    var mean = 0.0;
    for (var i = 0u; i < dims.columns; i++) { mean += left[row * dims.columns + i] * right[row * dims.columns + i]; }
    for (var i = 0u; i < dims.columns; i++) {
        result[row * dims.columns + i] = left[row * dims.columns + i] * (right[row * dims.columns + i] - mean);
    }
}

// result[expert] = sum(left * right)
fn inner_product(row: u32) {
    var sum = 0.0;
    for (var i = 0u; i < dims.columns; i++) { sum += left[row * dims.columns + i] * right[row * dims.columns + i]; }
    result[row * dims.experts + dims.expert] = sum;
}

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x < dims.rows) { OPERATION(id.x); }
}
