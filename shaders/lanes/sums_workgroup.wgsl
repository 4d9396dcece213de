// The lanes of a shrink add their sums through workgroup memory, SUMMED_COLUMNS columns at a time.
//@ import product/shrink: lane_sums
//@ kernel: absorb, shrunk
//@ host: COLUMNS, LANES, PASS_COLUMNS, QUADS, SCRATCH, SUMMED_COLUMNS, WORKGROUP

// [column of those summed together][quad][lane], each a vec4 over four tokens.
var<workgroup> scratch: array<vec4<f32>, SCRATCH>;

fn shrink_columns(begin: u32, end: u32, first_token: u32, tokens: u32, local: u32) {
    let quad = local / LANES;
    let lane = local % LANES;
    for (var first = begin; first < end; first += PASS_COLUMNS) {
        var sums: array<vec4<f32>, PASS_COLUMNS>;
        lane_sums(first, first_token, tokens, quad, lane, &sums);
        for (var begin_summed = 0u; begin_summed < PASS_COLUMNS; begin_summed += SUMMED_COLUMNS) {
            for (var column = 0u; column < SUMMED_COLUMNS; column++) {
                scratch[(column * QUADS + quad) * LANES + lane] = sums[begin_summed + column];
            }
            workgroupBarrier();
            for (var item = local; item < SUMMED_COLUMNS * QUADS; item += WORKGROUP) {
                var sum = scratch[item * LANES];
                for (var other = 1u; other < LANES; other++) {
                    sum += scratch[item * LANES + other];
                }
                let column = first + begin_summed + item / QUADS;
                if (column < end) {
                    shrunk(column, item % QUADS, sum);
                }
            }
            workgroupBarrier();
            if (first + begin_summed < end) {
                absorb(first_token, first + begin_summed, min(SUMMED_COLUMNS, end - first - begin_summed), local);
            }
        }
    }
}

fn shrink(first_token: u32, tokens: u32, local: u32) {
    shrink_columns(0u, COLUMNS, first_token, tokens, local);
}
