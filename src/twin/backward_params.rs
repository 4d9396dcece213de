//! Twin of `shaders/kernel/backward_params.wgsl` and `backward_params_reduce.wgsl`.

use super::forward::{counted, of_expert};
use super::{Approx, column, dot};
use crate::layer::{Adapter, Config, Gate, Router};

/// The inputs of backward with respect to the parameters. All have one row per token.
#[derive(Debug, Clone, Copy)]
pub struct Activations<'a> {
    /// The input: tokens x `d_in`.
    pub x: &'a [Approx],
    /// `dL/dy`: tokens x `d_out`.
    pub g: &'a [Approx],
    /// `h = A x`: tokens x the rows of A.
    pub h: &'a [Approx],
    /// The experts' weights: tokens x experts.
    pub w: &'a [Approx],
    /// `dL/dh`: tokens x the rows of A.
    pub dh: &'a [Approx],
    /// `dL/dl`: tokens x experts.
    pub dl: &'a [Approx],
}

/// `dA = sum_t dh x^T`, `dB_i = s * sum_t w_i g h^T`, `dW_g = sum_t dl x^T` (latent: `dl h^T`).
///
/// # Panics
/// If the arrays do not have the configuration's shapes.
#[must_use]
pub fn backward_params(config: &Config, activations: &Activations<'_>) -> Adapter<Approx> {
    let Activations { x, g, h, w, dh, dl } = *activations;
    let [d_in, d_out, rank, experts] =
        [config.d_in, config.d_out, config.rank, config.experts].map(|n| n as usize);
    let a_rows = config.a_rows() as usize;
    let scaling = Approx::rounded(f64::from(config.scaling));
    let router = match config.gate() {
        Gate::One | Gate::Router(Router::External, _) => Vec::new(),
        Gate::Router(Router::Input, _) => outer(dl, experts, x, d_in),
        Gate::Router(Router::Latent, _) => outer(dl, experts, h, rank),
    };
    let b = (0..experts)
        .map(|i| {
            let weighted = |(token, h)| {
                of_expert(config, h, i)
                    .iter()
                    .map(move |&h| scaling * counted(config, w[token * experts + i]) * h)
            };
            let z: Vec<Approx> = h.chunks_exact(a_rows).enumerate().flat_map(weighted).collect();
            outer(g, d_out, &z, rank)
        })
        .collect();
    Adapter { a: outer(dh, a_rows, x, d_in), router, b }
}

/// `Z^T X` summed over tokens: rows x columns.
fn outer(z: &[Approx], rows: usize, x: &[Approx], columns: usize) -> Vec<Approx> {
    (0..rows)
        .flat_map(|r| (0..columns).map(move |c| dot(column(z, r, rows).zip(column(x, c, columns)))))
        .collect()
}
