// The shrink ran as a separate dispatch (kernel/shrink.wgsl). This adds up its splits of the inner dimension,
// always in the same order.
//
// The kernel provides shrunk and absorb, as for product/shrink.wgsl.
//@ import product: add_splits
//@ kernel: absorb, shrunk
//@ host: COLUMNS, QUADS, SCRATCH, SPLITS, SUMMED_COLUMNS, TILE_TOKENS, WORKGROUP

// [split][tile][column][quad], each a vec4 over four tokens.
@group(0) @binding(1) var<storage, read> shrink_sums: array<vec4<f32>>;

// Room for the coefficients that the kernel stages; the sums themselves need none.
var<workgroup> scratch: array<vec4<f32>, SCRATCH>;

fn load_split(index: u32) -> vec4<f32> { return shrink_sums[index]; }

fn shrink(first_token: u32, tokens: u32, local: u32) {
    let tiles = (tokens + TILE_TOKENS - 1u) / TILE_TOKENS;
    let tile = first_token / TILE_TOKENS;
    for (var first = 0u; first < COLUMNS; first += SUMMED_COLUMNS) {
        let count = min(SUMMED_COLUMNS, COLUMNS - first);
        for (var item = local; item < count * QUADS; item += WORKGROUP) {
            let at = (tile * COLUMNS + first) * QUADS + item;
            let sum = add_splits(at, tiles * COLUMNS * QUADS, SPLITS);
            shrunk(first + item / QUADS, item % QUADS, sum);
        }
        workgroupBarrier();
        absorb(first_token, first, count, local);
        // Every thread has to absorb its share before the next columns take these ones' place.
        workgroupBarrier();
    }
}
