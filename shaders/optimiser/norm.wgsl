// What gradient_norm leaves for gradient_norm_reduce, and that for adamw and the caller.

// Sums of squares of f32 numbers, of which neither the largest nor the smallest fit f32 (Blue, "A Portable
// Fortran Program to Find the Euclidean Norm of a Vector", 1978). Each class has a sum of its own, in its
// own unit, so that 2^30 squares stay below 2^127, and none but that of a zero is below 2^-106.
struct Squares {
    // numbers below SMALL, times UP
    small: f32,
    middle: f32,
    // numbers of LARGE and more, times DOWN
    large: f32,
    // bits of the largest magnitude: says what the sums cannot, whether one is infinite or NaN
    largest: u32,
}

const SMALL = 0x1p-48f;
const LARGE = 0x1p48f;
const UP = 0x1p96f;
const DOWN = 0x1p-96f;

// The bits of infinity; above them is NaN. Infinities and NaN are told by their bits: compilers may take
// comparisons and arithmetic to be free of them.
const INFINITY = 0x7f800000u;
const NAN = 0x7fc00000u;

// The caller's `status` tensor: AdamWStatus on the host.
struct Status {
    // bits of the norm
    norm: u32,
    // steps whose norm was infinite or NaN
    skipped: u32,
}
