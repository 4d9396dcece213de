// The lanes of a shrink add their sums by shuffles among SHUFFLED_LANES lanes. If a quad has more lanes, each
// SHUFFLED_LANES of them leave a partial sum, and the LANE_PARTS partial sums are added through workgroup
// memory. There is a barrier only after SUMMED_COLUMNS columns.
//@ import product/shrink: lane_sums
//@ kernel: absorb, shrunk
//@ host: COLUMNS, GROUPS, LANES, LANE_PARTS, PASS_COLUMNS, QUADS, SCRATCH, SHUFFLED_LANES, SUMMED_COLUMNS, WORKGROUP

// [column of those summed together][quad][partial sum], each a vec4 over four tokens.
var<workgroup> scratch: array<vec4<f32>, SCRATCH>;

// The sum over SHUFFLED_LANES lanes. It is the same in every lane, and always added in the same order.
fn shuffled_sum(value: vec4<f32>) -> vec4<f32> {
    var sum = value;
    if (SHUFFLED_LANES > 1u) { sum += subgroupShuffleXor(sum, 1u); }
    if (SHUFFLED_LANES > 2u) { sum += subgroupShuffleXor(sum, 2u); }
    if (SHUFFLED_LANES > 4u) { sum += subgroupShuffleXor(sum, 4u); }
    if (SHUFFLED_LANES > 8u) { sum += subgroupShuffleXor(sum, 8u); }
    if (SHUFFLED_LANES > 16u) { sum += subgroupShuffleXor(sum, 16u); }
    if (SHUFFLED_LANES > 32u) { sum += subgroupShuffleXor(sum, 32u); }
    return sum;
}

fn shrink_columns(begin: u32, end: u32, first_token: u32, tokens: u32, local: u32) {
    let group = local / (QUADS * LANES);
    let quad = local / LANES % QUADS;
    let lane = local % LANES;
    for (var round = begin; round < end; round += GROUPS * PASS_COLUMNS) {
        let first = round + group * PASS_COLUMNS;
        var sums: array<vec4<f32>, PASS_COLUMNS>;
        lane_sums(first, first_token, tokens, quad, lane, &sums);
        for (var column = 0u; column < PASS_COLUMNS; column++) {
            let sum = shuffled_sum(sums[column]);
            if (lane % SHUFFLED_LANES == 0u && first + column < end) {
                if (LANE_PARTS == 1u) {
                    shrunk(first + column, quad, sum);
                } else {
                    scratch[((first + column - begin) * QUADS + quad) * LANE_PARTS + lane / SHUFFLED_LANES] = sum;
                }
            }
        }
    }
    workgroupBarrier();
    if (LANE_PARTS > 1u) {
        for (var item = local; item < (end - begin) * QUADS; item += WORKGROUP) {
            var sum = scratch[item * LANE_PARTS];
            for (var part = 1u; part < LANE_PARTS; part++) {
                sum += scratch[item * LANE_PARTS + part];
            }
            shrunk(begin + item / QUADS, item % QUADS, sum);
        }
        workgroupBarrier();
    }
    absorb(first_token, begin, end - begin, local);
}

fn shrink(first_token: u32, tokens: u32, local: u32) {
    // Some compilers keep more in registers if no loop surrounds the barrier.
    if (SUMMED_COLUMNS >= COLUMNS) {
        shrink_columns(0u, COLUMNS, first_token, tokens, local);
    } else {
        for (var begin = 0u; begin < COLUMNS; begin += SUMMED_COLUMNS) {
            shrink_columns(begin, min(begin + SUMMED_COLUMNS, COLUMNS), first_token, tokens, local);
            // Every thread has to absorb its share before the next columns take these ones' place.
            workgroupBarrier();
        }
    }
}
