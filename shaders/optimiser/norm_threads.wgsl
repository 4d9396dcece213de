// Adds up the squares of all threads of a workgroup, always in the same order: first those of eight neighbours, by
// eight threads side by side, then what these have.
//@ import optimiser/norm: Squares
//@ host: WORKGROUP

const NEIGHBOURS = 8u;

const_assert WORKGROUP == NEIGHBOURS * NEIGHBOURS;

// The bits of Squares: SPIR-V has no struct in workgroup memory that is also in a buffer.
var<workgroup> thread_squares: array<vec4<u32>, WORKGROUP>;

fn squares_of_thread(thread: u32) -> Squares {
    let bits = thread_squares[thread];
    return Squares(bitcast<f32>(bits.x), bitcast<f32>(bits.y), bitcast<f32>(bits.z), bits.w);
}

fn keep_squares(thread: u32, squares: Squares) {
    thread_squares[thread] = vec4<u32>(
        bitcast<u32>(squares.small),
        bitcast<u32>(squares.middle),
        bitcast<u32>(squares.large),
        squares.largest,
    );
}

fn add_squares_of(one: Squares, other: Squares) -> Squares {
    return Squares(
        one.small + other.small,
        one.middle + other.middle,
        one.large + other.large,
        max(one.largest, other.largest),
    );
}

// Adds up those of eight threads, the first of which is `first`, and each other `stride` after the one before.
fn add_neighbours(first: u32, stride: u32) -> Squares {
    var sum = squares_of_thread(first);
    for (var neighbour = 1u; neighbour < NEIGHBOURS; neighbour++) {
        sum = add_squares_of(sum, squares_of_thread(first + neighbour * stride));
    }
    return sum;
}

// The sum is thread 0's alone.
fn add_threads(own: Squares, local: u32) -> Squares {
    keep_squares(local, own);
    workgroupBarrier();
    // Each of these threads writes only what it alone has read.
    if (local % NEIGHBOURS == 0u) {
        keep_squares(local, add_neighbours(local, 1u));
    }
    workgroupBarrier();
    if (local != 0u) {
        return own;
    }
    return add_neighbours(0u, NEIGHBOURS);
}
