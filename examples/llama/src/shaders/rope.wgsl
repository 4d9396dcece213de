// rope: turns the pairs (i, i + HEAD_WIDTH / 2) of every head by angles that grow with the token's place, backwards where
// INVERSE. Rows have COLUMNS elements; they are stored from the span's first place on where STORED. Without ROTATED they are
// only stored.
//
// Bindings: 0 span (batch.wgsl), 1 source (tokens x COLUMNS), 2 rotated (rows x COLUMNS), 3 turns (places x HEAD_WIDTH / 2:
//   cosines and sines, which shaders know too inexactly)
// Grid: x = tokens. Workgroup: 64 threads along a row.
@group(0) @binding(1) var<storage, read> source: array<f32>;
@group(0) @binding(2) var<storage, read_write> rotated: array<f32>;
@group(0) @binding(3) var<storage, read> turns: array<vec2<f32>>;

const HALF = HEAD_WIDTH / 2u;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) local: u32) {
    if (id.x >= span.tokens) { return; }
    let place = span.position + id.x % span.sequence;
    let row = select(id.x, span.position + id.x, STORED);
    for (var c = local; c < COLUMNS / 2u; c += 64u) {
        // The pair's first element in its row.
        let first = c / HALF * HEAD_WIDTH + c % HALF;
        let from_row = id.x * COLUMNS + first;
        var value = vec2<f32>(source[from_row], source[from_row + HALF]);
        let turn = turns[place * HALF + c % HALF];
        if (ROTATED) {
            let sine = select(turn.y, -turn.y, INVERSE);
            value = vec2<f32>(value.x * turn.x - value.y * sine, value.x * sine + value.y * turn.x);
        }
        rotated[row * COLUMNS + first] = value.x;
        rotated[row * COLUMNS + first + HALF] = value.y;
    }
}
