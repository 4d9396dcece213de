//! Twin of `shaders/kernel/linear.wgsl`.

use super::{Approx, column, dot, inner, row};

/// `y = W0 x + bias`: tokens x `d_out`. `weight` is `d_out` x `d_in`, and `x` is tokens x `d_in`. If y is
/// accumulated, `base` is its old contents: tokens x `d_out`.
///
/// # Panics
/// If the arrays do not have these shapes.
#[must_use]
pub fn linear(
    [d_in, d_out]: [usize; 2],
    weight: &[Approx],
    bias: Option<&[Approx]>,
    x: &[Approx],
    base: Option<&[Approx]>,
) -> Vec<Approx> {
    let mut y = Vec::new();
    for x in x.chunks_exact(d_in) {
        for o in 0..d_out {
            let product = inner(row(weight, o, d_in), x);
            let with_bias = bias.map_or(product, |bias| product + bias[o]);
            y.push(base.map_or(with_bias, |base| base[y.len()] + with_bias));
        }
    }
    y
}

/// `dx = W0^T g`: tokens x `d_in`. `weight` is `d_out` x `d_in`, and `g` is tokens x `d_out`. If dx is
/// accumulated, `base` is its old contents: tokens x `d_in`.
///
/// # Panics
/// If the arrays do not have these shapes.
#[must_use]
pub fn linear_backward(
    [d_in, d_out]: [usize; 2],
    weight: &[Approx],
    g: &[Approx],
    base: Option<&[Approx]>,
) -> Vec<Approx> {
    let mut dx = Vec::new();
    for g in g.chunks_exact(d_out) {
        for c in 0..d_in {
            let product = dot(column(weight, c, d_in).zip(g.iter().copied()));
            dx.push(base.map_or(product, |base| base[dx.len()] + product));
        }
    }
    dx
}
