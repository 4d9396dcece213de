// gelu_backward: turns the gradient at gelu's output into that at its input, in place.
//
//   g *= (1 + t) / 2 + y / 2 * (1 - t^2) * du/dy
//   t = tanh(u),  u = sqrt(2 / pi) * (y + 0.044715 y^3)
//
// Bindings:
//   0  y  tokens x 512 f32
//   1  g  tokens x 512 f32; updated
// Grid: x = tokens * 512 / 256. Workgroup: 64 threads, a vec4 each.

@group(0) @binding(0) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> g: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let value = y[id.x];
    let square = value * value;
    let u = 0.7978845608 * value * (1.0 + 0.044715 * square);
    let slope = 0.7978845608 * (1.0 + 0.134145 * square);
    // In f32 tanh is 1 from 10 on, and some drivers return NaN for large arguments.
    let t = tanh(clamp(u, vec4<f32>(-10.0), vec4<f32>(10.0)));
    g[id.x] *= 0.5 * (1.0 + t) + 0.5 * value * (1.0 - t * t) * slope;
}
