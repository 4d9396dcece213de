// The lanes of a shrink add their sums through workgroup memory, REDUCE columns at a time.
//
// Consts: REDUCE (divides GROUP), SCRATCH = REDUCE * WORKGROUP.

// [column within the chunk][quad][lane], each a vec4 over four tokens.
var<workgroup> scratch: array<vec4<f32>, SCRATCH>;

fn shrink_columns(begin: u32, end: u32, first_token: u32, tokens: u32, local: u32) {
    let quad = local / LANES;
    let lane = local % LANES;
    for (var first = begin; first < end; first += GROUP) {
        var sums: array<vec4<f32>, GROUP>;
        lane_sums(first, first_token, tokens, quad, lane, &sums);
        for (var chunk = 0u; chunk < GROUP; chunk += REDUCE) {
            for (var column = 0u; column < REDUCE; column++) {
                scratch[(column * QUADS + quad) * LANES + lane] = sums[chunk + column];
            }
            workgroupBarrier();
            for (var item = local; item < REDUCE * QUADS; item += WORKGROUP) {
                var sum = scratch[item * LANES];
                for (var other = 1u; other < LANES; other++) {
                    sum += scratch[item * LANES + other];
                }
                let column = first + chunk + item / QUADS;
                if (column < end) {
                    shrunk(column, item % QUADS, sum);
                }
            }
            workgroupBarrier();
            if (first + chunk < end) {
                absorb(first + chunk, min(REDUCE, end - first - chunk), local);
            }
        }
    }
}

fn shrink(first_token: u32, tokens: u32, local: u32) {
    shrink_columns(0u, COLUMNS, first_token, tokens, local);
}
