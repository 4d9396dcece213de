// shrink: P = X M^T as a separate dispatch before forward or backward_input, for too few tokens to keep the
// device busy, or for more columns than a workgroup completes at a time. Workgroups share a tile's columns
// and its inner dimension.
//
// Bindings (matrices row-major):
//   0  dims        uniform
//   1  source      tokens x source width: x or g
//   2  parameters  the packed adapter, with M (COLUMNS x source width) in it
//   3  shrink_sums [split][tile][column][quad], each a vec4 over four tokens (source/sums.wgsl)
//   group 1, 0     batch, uniform (uniform/batch.wgsl)
// Grid: x = blocks of PASS_COLUMNS columns for each split of the inner dimension; y and z = token tiles
// (folded). Workgroup: QUADS * LANES threads. Workgroup memory: `scratch`, SCRATCH * 16 bytes (the lanes'
// sums).
//@ import access: parameters_element, source_element
//@ import lanes: local_index, shrink_columns
//@ import uniform/batch: batch_tokens
//@ host: COLUMNS, PASS_COLUMNS, QUADS, THREAD_ARGUMENTS, THREAD_NAMES, TILE_TOKENS, WORKGROUP

struct Dims {
    source_width: u32,
    // elements from the start of a row to the start of the next
    source_stride: u32,
    // where M starts in `parameters`, in vec4s
    matrix: u32,
    // vec4s of a source row in one split
    split_vecs: u32,
    // the first tile of tokens of this dispatch
    first_tile: u32,
    // of dropout: 65536 * the probability, 1 / (1 - it), and what tells this layer's from those of others
    dropout_threshold: u32,
    keep_scale: f32,
    dropout_stream: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> source: array<source_element>;
@group(0) @binding(2) var<storage, read> parameters: array<parameters_element>;
@group(0) @binding(3) var<storage, read_write> shrink_sums: array<vec4<f32>>;

const COLUMN_BLOCKS = (COLUMNS + PASS_COLUMNS - 1u) / PASS_COLUMNS;

// This workgroup's split, and where its sums start in `shrink_sums`.
var<private> split: u32;
var<private> first_sum: u32;

fn source_vecs() -> u32 { return (dims.source_width + 3u) / 4u; }
fn source_begin() -> u32 { return split * dims.split_vecs; }
fn source_end() -> u32 { return min(source_begin() + dims.split_vecs, source_vecs()); }
fn shrink_matrix() -> u32 { return dims.matrix; }
fn shrunk(column: u32, quad: u32, value: vec4<f32>) {
    shrink_sums[first_sum + column * QUADS + quad] = value;
}
fn absorb(first_token: u32, first: u32, count: u32, local: u32) {}

@compute @workgroup_size(WORKGROUP)
fn main(
    @builtin(workgroup_id) workgroup_id: vec3<u32>,
    @builtin(num_workgroups) num_workgroups: vec3<u32>,
    THREAD_ARGUMENTS,
) {
    let tile = dims.first_tile + workgroup_id.y + workgroup_id.z * num_workgroups.y;
    if (tile * TILE_TOKENS >= batch_tokens()) {
        return;
    }
    split = workgroup_id.x / COLUMN_BLOCKS;
    let tiles = (batch_tokens() + TILE_TOKENS - 1u) / TILE_TOKENS;
    first_sum = (split * tiles + tile) * COLUMNS * QUADS;
    let first_column = workgroup_id.x % COLUMN_BLOCKS * PASS_COLUMNS;
    let end_column = min(first_column + PASS_COLUMNS, COLUMNS);
    shrink_columns(first_column, end_column, tile * TILE_TOKENS, batch_tokens(), local_index(THREAD_NAMES));
}
