// gradient_norm_reduce: the gradients' norm, from gradient_norm's partial sums added up in order. If the norm
// is NaN, infinite or too large for f32, the step is counted as skipped, and adamw leaves everything as it
// is.
//
// Bindings:
//   0  dims     uniform
//   1  squares  gradient_norm's partial sums, of all buffers of gradients
//   2  status   norm: overwritten; skipped: incremented if the norm is not finite
// Grid: one workgroup of one thread.
// Workgroup memory: none.
//@ import optimiser/norm: DOWN, INFINITY, NAN, Squares, Status, UP

struct Dims {
    squares: u32,
}

@group(0) @binding(0) var<uniform> dims: Dims;
@group(0) @binding(1) var<storage, read> squares: array<Squares>;
@group(0) @binding(2) var<storage, read_write> status: Status;

@compute @workgroup_size(1)
fn main() {
    var total = Squares(0.0, 0.0, 0.0, 0u);
    for (var at = 0u; at < dims.squares; at++) {
        let sums = squares[at];
        total.small += sums.small;
        total.middle += sums.middle;
        total.large += sums.large;
        total.largest = max(total.largest, sums.largest);
    }
    let norm = norm_bits(total);
    status.norm = norm;
    if (norm >= INFINITY) {
        status.skipped += 1u;
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
