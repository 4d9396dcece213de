// embed: the embeddings of the tokens.
//
// Bindings: 0 span (batch.wgsl), 1 tokens (numbers), 2 table (VOCABULARY x WIDTH, by access), 3 x (tokens x WIDTH)
// Grid: x = tokens. Workgroup: 64 threads along a row.
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (id.x >= span.tokens) { return; }
    let row = min(tokens[id.x], VOCABULARY - 1u);
    for (var c = local; c < WIDTH / 4u; c += 64u) {
        x[id.x * (WIDTH / 4u) + c] = load_table(row * (WIDTH / 4u) + c);
    }
}
