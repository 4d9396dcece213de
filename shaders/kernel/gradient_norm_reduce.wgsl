// gradient_norm_reduce: the gradients' norm, from gradient_norm's partial sums added up in a fixed order: each
// thread takes its share of every buffer's, and optimiser/norm_threads.wgsl adds up those of all threads. If the norm
// is NaN, infinite or too large for f32, the step is counted as skipped, and adamw leaves everything as it
// is.
//
// Bindings:
//   0  dims     uniform
//   1  squares  gradient_norm's partial sums, of all buffers of gradients
//   2  status   norm: overwritten; skipped: incremented if the norm is not finite
// Grid: one workgroup of WORKGROUP threads.
// Workgroup memory: `thread_squares`, WORKGROUP * 16 bytes (optimiser/norm_threads.wgsl).
//@ import optimiser/norm: DOWN, INFINITY, NAN, Squares, Status, UP
//@ import optimiser/norm_threads: add_squares_of, add_threads
//@ host: WORKGROUP

struct Dims {
    squares: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> squares: array<Squares>;
@group(0) @binding(2) var<storage, read_write> status: Status;

// None past the end.
fn load_squares(at: u32) -> Squares {
    if (at < dims.squares) {
        return squares[at];
    }
    return Squares(0.0, 0.0, 0.0, 0u);
}

@compute @workgroup_size(WORKGROUP)
fn main(@builtin(local_invocation_index) local: u32) {
    var sum = Squares(0.0, 0.0, 0.0, 0u);
    for (var at = local; at < dims.squares; at += 4u * WORKGROUP) {
        let squares0 = load_squares(at);
        let squares1 = load_squares(at + WORKGROUP);
        let squares2 = load_squares(at + 2u * WORKGROUP);
        let squares3 = load_squares(at + 3u * WORKGROUP);
        sum = add_squares_of(sum, squares0);
        sum = add_squares_of(sum, squares1);
        sum = add_squares_of(sum, squares2);
        sum = add_squares_of(sum, squares3);
    }
    let all = add_threads(sum, local);
    if (local == 0u) {
        let norm = norm_bits(all);
        status.norm = norm;
        if (norm >= INFINITY) {
            status.skipped += 1u;
        }
    }
}

// sum * DOWN * DOWN, but not as a product: compilers may compute sum * (DOWN * DOWN), which is zero. Mesa's
// GL does.
fn in_larger_unit(sum: f32) -> f32 {
    const EXPONENT = 192u << 23u;
    let bits = bitcast<u32>(sum);
    return select(0.0, bitcast<f32>(bits - EXPONENT), bits > EXPONENT);
}

fn norm_bits(squares: Squares) -> u32 {
    if (squares.largest > INFINITY) {
        return NAN;
    }
    if (squares.largest == INFINITY) {
        return INFINITY;
    }
    // Adds to each class the next smaller one, in the larger one's unit. Anything two classes down is
    // negligible.
    if (squares.large > 0.0) {
        let root = sqrt(squares.large + in_larger_unit(squares.middle));
        // root * UP would be 2^128 or more.
        if (root >= 0x1p32f) {
            return INFINITY;
        }
        return bitcast<u32>(root * UP);
    }
    if (squares.middle > 0.0) {
        return bitcast<u32>(sqrt(squares.middle + in_larger_unit(squares.small)));
    }
    return bitcast<u32>(sqrt(squares.small) * DOWN);
}
