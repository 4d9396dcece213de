// embed: the model's input, the embeddings of a window's 16 context bytes side by side.
//
//   x[t][32 k + j] = embedding[windows[t][k]][j]
//
// Bindings (row-major):
//   0  windows    tokens x 17 u32: 16 context bytes, then the byte to predict
//   1  embedding  256 x 32 f32
//   2  x          tokens x 512 f32; written
// Grid: x = tokens. Workgroup: 128 threads, a vec4 of the token's row each.

@group(0) @binding(0) var<storage, read> windows: array<u32>;
@group(0) @binding(1) var<storage, read> embedding: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> x: array<vec4<f32>>;

const WINDOW = 17u;
const ROW_QUADS = 128u;
const BYTE_QUADS = 8u;

@compute @workgroup_size(128)
fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) quad: u32) {
    let byte = windows[group.x * WINDOW + quad / BYTE_QUADS];
    x[group.x * ROW_QUADS + quad] = embedding[byte * BYTE_QUADS + quad % BYTE_QUADS];
}
