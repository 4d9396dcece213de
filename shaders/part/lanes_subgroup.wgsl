// The lanes of a shrink add their sums by shuffles, SHUFFLED lanes at a time. Where those are not all, what
// each SHUFFLED lanes have is a part, and the PARTS are added through workgroup memory. A barrier comes
// only behind REDUCE columns.
//
// Consts: SHUFFLED (a power of two, at most 64 and at most any subgroup's size), PARTS = LANES / SHUFFLED,
// REDUCE (a multiple of GROUP), SCRATCH (at least REDUCE * QUADS * PARTS where there are several parts, and
// room for what the kernel stages).

// [column of those summed together][quad][part], each a vec4 over four tokens.
var<workgroup> scratch: array<vec4<f32>, SCRATCH>;

// The same in every lane, added in the same order.
fn shuffled_sum(value: vec4<f32>) -> vec4<f32> {
    var sum = value;
    if (SHUFFLED > 1u) { sum += subgroupShuffleXor(sum, 1u); }
    if (SHUFFLED > 2u) { sum += subgroupShuffleXor(sum, 2u); }
    if (SHUFFLED > 4u) { sum += subgroupShuffleXor(sum, 4u); }
    if (SHUFFLED > 8u) { sum += subgroupShuffleXor(sum, 8u); }
    if (SHUFFLED > 16u) { sum += subgroupShuffleXor(sum, 16u); }
    if (SHUFFLED > 32u) { sum += subgroupShuffleXor(sum, 32u); }
    return sum;
}

fn shrink_columns(begin: u32, end: u32, first_token: u32, tokens: u32, local: u32) {
    let quad = local / LANES;
    let lane = local % LANES;
    for (var first = begin; first < end; first += GROUP) {
        var sums: array<vec4<f32>, GROUP>;
        lane_sums(first, first_token, tokens, quad, lane, &sums);
        for (var column = 0u; column < GROUP; column++) {
            let sum = shuffled_sum(sums[column]);
            if (lane % SHUFFLED == 0u && first + column < COLUMNS) {
                if (PARTS == 1u) {
                    shrunk(first + column, quad, sum);
                } else {
                    scratch[((first + column - begin) * QUADS + quad) * PARTS + lane / SHUFFLED] = sum;
                }
            }
        }
    }
    workgroupBarrier();
    if (PARTS > 1u) {
        for (var item = local; item < (end - begin) * QUADS; item += WORKGROUP) {
            var sum = scratch[item * PARTS];
            for (var part = 1u; part < PARTS; part++) {
                sum += scratch[item * PARTS + part];
            }
            shrunk(begin + item / QUADS, item % QUADS, sum);
        }
        workgroupBarrier();
    }
    absorb(begin, end - begin, local);
}

fn shrink(first_token: u32, tokens: u32, local: u32) {
    // Without a loop around the barrier, some compilers keep more in registers.
    if (REDUCE >= COLUMNS) {
        shrink_columns(0u, COLUMNS, first_token, tokens, local);
    } else {
        for (var chunk = 0u; chunk < COLUMNS; chunk += REDUCE) {
            shrink_columns(chunk, min(chunk + REDUCE, COLUMNS), first_token, tokens, local);
            // Before the next columns take these ones' place.
            workgroupBarrier();
        }
    }
}
