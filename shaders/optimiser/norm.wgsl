// Squares passes from gradient_norm to gradient_norm_reduce, and Status from there to adamw and the caller.

// Sums of squares of f32 numbers. The largest and the smallest squares do not fit f32, so numbers are divided
// into three classes (Blue, "A Portable Fortran Program to Find the Euclidean Norm of a Vector", 1978). Each
// class has its own sum in its own unit: 2^30 squares stay below 2^127, and no square is below 2^-106, except
// that of a zero.
struct Squares {
    // of numbers below SMALL, times UP
    small: f32,
    middle: f32,
    // of numbers of LARGE and more, times DOWN
    large: f32,
    // bits of the largest magnitude: unlike the sums, they tell reliably whether a number is infinite or NaN
    largest: u32,
}

const SMALL = 0x1p-48f;
const LARGE = 0x1p48f;
const UP = 0x1p96f;
const DOWN = 0x1p-96f;

// The bits of infinity; greater bits are NaN. Infinities and NaN are recognised by their bits, because
// compilers may assume that comparisons and arithmetic are free of them.
const INFINITY = 0x7f800000u;
const NAN = 0x7fc00000u;

// The caller's `status` tensor: AdamWStatus on the host.
struct Status {
    // bits of the norm
    norm: u32,
    // steps whose norm was infinite or NaN
    skipped: u32,
}
