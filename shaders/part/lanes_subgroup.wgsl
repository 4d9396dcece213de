// The lanes of a shrink, all in one subgroup, add their sums by shuffles: no workgroup memory, and a
// barrier only for every REDUCE columns.
//
// Consts: LANES (a power of two, at most 64 and at most any subgroup's size), REDUCE (a multiple of
// GROUP), SCRATCH (room for what the kernel stages).

// Subgroups need not follow the local index, so threads are numbered by their subgroups.
struct Thread {
    @builtin(subgroup_id) subgroup: u32,
    @builtin(subgroup_size) size: u32,
    @builtin(subgroup_invocation_id) invocation: u32,
}

fn local_index(thread: Thread) -> u32 { return thread.subgroup * thread.size + thread.invocation; }

var<workgroup> scratch: array<vec4<f32>, SCRATCH>;

// The same in every lane, added in the same order.
fn sum_over_lanes(value: vec4<f32>) -> vec4<f32> {
    var sum = value;
    if (LANES > 1u) { sum += subgroupShuffleXor(sum, 1u); }
    if (LANES > 2u) { sum += subgroupShuffleXor(sum, 2u); }
    if (LANES > 4u) { sum += subgroupShuffleXor(sum, 4u); }
    if (LANES > 8u) { sum += subgroupShuffleXor(sum, 8u); }
    if (LANES > 16u) { sum += subgroupShuffleXor(sum, 16u); }
    if (LANES > 32u) { sum += subgroupShuffleXor(sum, 32u); }
    return sum;
}

fn shrink_columns(begin: u32, end: u32, first_token: u32, tokens: u32, local: u32) {
    let quad = local / LANES;
    let lane = local % LANES;
    for (var first = begin; first < end; first += GROUP) {
        var sums: array<vec4<f32>, GROUP>;
        lane_sums(first, first_token, tokens, quad, lane, &sums);
        for (var column = 0u; column < GROUP; column++) {
            let sum = sum_over_lanes(sums[column]);
            if (lane == 0u && first + column < COLUMNS) {
                shrunk(first + column, quad, sum);
            }
        }
    }
    workgroupBarrier();
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
