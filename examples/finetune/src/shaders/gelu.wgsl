// gelu: its tanh form, element by element.
//
//   a = y / 2 * (1 + tanh(u)),  u = sqrt(2 / pi) * (y + 0.044715 y^3)
//
// Bindings:
//   0  y  tokens x 512 f32
//   1  a  tokens x 512 f32; written
// Grid: x = tokens * 512 / 256. Workgroup: 64 threads, a vec4 each.

@group(0) @binding(0) var<storage, read> y: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> a: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
    let value = y[id.x];
    let u = 0.7978845608 * (value + 0.044715 * value * value * value);
    // In f32 tanh is 1 from 10 on, and some drivers return NaN for large arguments.
    let t = tanh(clamp(u, vec4<f32>(-10.0), vec4<f32>(10.0)));
    a[id.x] = 0.5 * value * (1.0 + t);
}
