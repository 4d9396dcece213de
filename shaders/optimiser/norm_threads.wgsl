// Adds up the squares of all threads of a workgroup, always in the same order: first those of eight neighbours, by
// eight threads side by side, then what these have.
//@ import optimiser/norm: Squares
//@ host: WORKGROUP

const NEIGHBOURS = 8u;

const_assert WORKGROUP == NEIGHBOURS * NEIGHBOURS;

var<workgroup> thread_squares: array<Squares, WORKGROUP>;

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
    var sum = thread_squares[first];
    for (var neighbour = 1u; neighbour < NEIGHBOURS; neighbour++) {
        sum = add_squares_of(sum, thread_squares[first + neighbour * stride]);
    }
    return sum;
}

// The sum is thread 0's alone.
fn add_threads(own: Squares, local: u32) -> Squares {
    thread_squares[local] = own;
    workgroupBarrier();
    // Each of these threads writes only what it alone has read.
    if (local % NEIGHBOURS == 0u) {
        thread_squares[local] = add_neighbours(local, 1u);
    }
    workgroupBarrier();
    if (local != 0u) {
        return own;
    }
    return add_neighbours(0u, NEIGHBOURS);
}
