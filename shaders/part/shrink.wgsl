// shrink: P = X M^T for one tile of tokens, a long reduction to a few columns.
//
// X is the kernel's dense source (tokens x source length), M a block of `parameters` with COLUMNS
// rows. The workgroup's lanes lie along the inner dimension: thread = (quad of tokens, lane), each
// keeping 4 tokens x GROUP columns in registers, so that X is read once per column group, coalesced,
// 16 bytes a lane. Sums over lanes go through workgroup memory, REDUCE columns at a time, always in
// the same order.
//
// Consts: COLUMNS, GROUP, REDUCE (divides GROUP), LANES, QUADS, WORKGROUP = QUADS * LANES.
// The kernel provides:
//   load_source(row, k) -> vec4      four elements of X
//   source_groups() -> u32           vec4 groups in a row of X and of M
//   shrink_matrix() -> u32           where M starts in `parameters`, in vec4 groups
//   shrunk(column, quad, value)      takes one column of P for four tokens (one thread each)
//   absorb(first, count, local)      after a barrier: columns first .. first + count are complete

// [column within the chunk][quad][lane], each a vec4 over four tokens: REDUCE * QUADS * LANES * 16 B.
var<workgroup> lane_sums: array<vec4<f32>, REDUCE * QUADS * LANES>;

fn shrink(first_token: u32, tokens: u32, local: u32) {
    let quad = local / LANES;
    let lane = local % LANES;
    let groups = source_groups();
    let matrix = shrink_matrix();
    // Tokens past the end repeat the last one; what is computed for them is never stored.
    let row0 = min(first_token + 4u * quad, tokens - 1u);
    let row1 = min(first_token + 4u * quad + 1u, tokens - 1u);
    let row2 = min(first_token + 4u * quad + 2u, tokens - 1u);
    let row3 = min(first_token + 4u * quad + 3u, tokens - 1u);
    for (var first = 0u; first < COLUMNS; first += GROUP) {
        var sums: array<vec4<f32>, GROUP>;
        for (var column = 0u; column < GROUP; column++) {
            sums[column] = vec4<f32>(0.0);
        }
        for (var k = lane; k < groups; k += LANES) {
            let x0 = load_source(row0, k);
            let x1 = load_source(row1, k);
            let x2 = load_source(row2, k);
            let x3 = load_source(row3, k);
            for (var column = 0u; column < GROUP; column++) {
                let m = group_parameters(matrix + min(first + column, COLUMNS - 1u) * groups + k);
                sums[column] += vec4<f32>(dot(x0, m), dot(x1, m), dot(x2, m), dot(x3, m));
            }
        }
        for (var chunk = 0u; chunk < GROUP; chunk += REDUCE) {
            for (var column = 0u; column < REDUCE; column++) {
                lane_sums[(column * QUADS + quad) * LANES + lane] = sums[chunk + column];
            }
            workgroupBarrier();
            for (var item = local; item < REDUCE * QUADS; item += WORKGROUP) {
                var sum = lane_sums[item * LANES];
                for (var other = 1u; other < LANES; other++) {
                    sum += lane_sums[item * LANES + other];
                }
                let column = first + chunk + item / QUADS;
                if (column < COLUMNS) {
                    shrunk(column, item % QUADS, sum);
                }
            }
            workgroupBarrier();
            if (first + chunk < COLUMNS) {
                absorb(first + chunk, min(REDUCE, COLUMNS - first - chunk), local);
            }
        }
    }
}
