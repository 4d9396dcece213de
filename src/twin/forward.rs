//! Twin of `shaders/kernel/forward.wgsl`.

use super::{Approx, dot, dot_onto, inner, row};
use crate::layer::{Adapter, Config, Gate, Router, Sharing};

/// The results of forward.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The adapter's contribution to y, added to `base` if there is one: tokens x `d_out`.
    pub y: Vec<Approx>,
    /// `h = A x`: tokens x the rows of A.
    pub h: Vec<Approx>,
    /// The experts' weights: tokens x experts.
    pub w: Vec<Approx>,
}

/// `y = s * sum_i softmax(l)_i B_i A x`, with `l = W_g x` or `W_g A x`. A single expert has weight 1.
///
/// `x` is tokens x `d_in`. Given weights are `gates`, tokens x experts. If y is accumulated, `base` is its old contents: tokens x `d_out`.
///
/// # Panics
/// If the arrays do not have the configuration's shapes.
#[must_use]
pub fn forward(
    config: &Config,
    parameters: &Adapter<Approx>,
    x: &[Approx],
    gates: Option<&[Approx]>,
    base: Option<&[Approx]>,
) -> Output {
    let [d_in, d_out, rank, experts] =
        [config.d_in, config.d_out, config.rank, config.experts].map(|n| n as usize);
    let scaling = Approx::rounded(f64::from(config.scaling));
    let mut output = Output { y: Vec::new(), h: Vec::new(), w: Vec::new() };
    for (token, x) in x.chunks_exact(d_in).enumerate() {
        let h: Vec<Approx> =
            (0..config.a_rows() as usize).map(|j| inner(row(&parameters.a, j, d_in), x)).collect();
        let logit_or_weight = |i| match config.router {
            Router::Input => inner(row(&parameters.router, i, d_in), x),
            Router::Latent => inner(row(&parameters.router, i, rank), &h),
            Router::External => gates.expect("given weights")[token * experts + i],
        };
        let w = match config.gate() {
            Gate::One => vec![Approx::exact(1.0)],
            Gate::Router(Router::External) => (0..experts).map(logit_or_weight).collect(),
            Gate::Router(_) => softmax(&(0..experts).map(logit_or_weight).collect::<Vec<_>>()),
        };
        for o in 0..d_out {
            let base = base.map(|base| base[token * d_out + o]);
            output.y.push(dot_onto(
                base,
                (0..experts).flat_map(|i| {
                    let factor = scaling * w[i];
                    let b = row(&parameters.b[i], o, rank);
                    of_expert(config, &h, i).iter().zip(b).map(move |(&h, &b)| (factor * h, b))
                }),
            ));
        }
        output.h.extend(h);
        output.w.extend(w);
    }
    output
}

/// What an expert has of h, or of dh.
pub(super) fn of_expert<'a>(config: &Config, h: &'a [Approx], expert: usize) -> &'a [Approx] {
    match config.a {
        Sharing::Shared => h,
        Sharing::Separate => row(h, expert, config.rank as usize),
    }
}

/// `exp(l_i - max l) / sum_j exp(l_j - max l)`.
fn softmax(logits: &[Approx]) -> Vec<Approx> {
    let largest = logits.iter().map(|l| l.value).fold(f64::NEG_INFINITY, f64::max);
    let shifted: Vec<Approx> = logits.iter().map(|&l| l - Approx::exact(largest)).collect();
    let exponentials: Vec<Approx> = shifted.iter().map(|l| l.exp()).collect();
    let total = dot(exponentials.iter().map(|&e| (e, Approx::exact(1.0))));
    exponentials.into_iter().map(|e| e.divide(total)).collect()
}
