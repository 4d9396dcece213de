// embed: the embeddings of those tokens whose rows lie in a part of the table.
//
// Bindings: 0 span (batch.wgsl), 1 tokens (numbers), 2 table (part.rows x WIDTH, by access), 3 x (tokens x WIDTH), 4 part
// Grid: x = tokens. Workgroup: 64 threads along a row.
@group(0) @binding(1) var<storage, read> tokens: array<u32>;
@group(0) @binding(3) var<storage, read_write> x: array<vec4<f32>>;
@group(0) @binding(4) var<uniform> part: Part;

struct Part {
    // The first row of the table, and the number of rows.
    first: u32,
    rows: u32,
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (id.x >= span.tokens) { return; }
    let row = min(tokens[id.x], VOCABULARY - 1u) - part.first;
    // Rows before the part have become very large numbers.
    if (row >= part.rows) { return; }
    for (var c = local; c < WIDTH / 4u; c += 64u) {
        x[id.x * (WIDTH / 4u) + c] = load_table(row * (WIDTH / 4u) + c);
    }
}
