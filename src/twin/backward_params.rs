//! Twin of `shaders/kernel/backward_params.wgsl` and `backward_params_reduce.wgsl`.

use super::dropout::Drops;
use super::forward::{counted, of_expert};
use super::{Approx, Extras, column, dot, gate_len};
use crate::layer::{Adapter, Config, Gate, Logits};

/// The inputs of backward with respect to the parameters. All have one row per token.
#[derive(Debug, Clone, Copy)]
pub struct Activations<'a> {
    /// The input: tokens x `d_in`.
    pub x: &'a [Approx],
    /// `dL/dy`: tokens x `d_out`.
    pub g: &'a [Approx],
    /// `h = A x`: tokens x the rows of A.
    pub h: &'a [Approx],
    /// The experts' weights, and what else forward saved of them: tokens x experts, or one more.
    pub w: &'a [Approx],
    /// `dL/dh`: tokens x the rows of A.
    pub dh: &'a [Approx],
    /// `dL/dl`, of the same shape.
    pub dl: &'a [Approx],
}

/// `dA = sum_t dh x^T`, `dB_i = s * sum_t w_i g h^T`, `dW_g = sum_t dl x^T` (latent: `dl h^T`).
///
/// # Panics
/// If the arrays do not have the configuration's shapes.
#[must_use]
pub fn backward_params(
    config: &Config,
    activations: &Activations<'_>,
    extras: &Extras<'_>,
) -> Adapter<Approx> {
    let Activations { x, g, h, w, dh, dl } = *activations;
    let [d_in, d_out, rank, experts] =
        [config.d_in, config.d_out, config.rank, config.experts].map(|n| n as usize);
    let a_rows = config.a_rows() as usize;
    let scaling = Approx::rounded(f64::from(config.scaling));
    let drops = Drops::new(config, extras.random);
    // Masked tokens may have any numbers.
    let taken = |rows: &[Approx], width: usize| -> Vec<Approx> {
        let rows = rows.chunks_exact(width).enumerate();
        rows.flat_map(|(token, row)| {
            row.iter().map(move |&x| if extras.takes(token) { x } else { Approx::exact(0.0) })
        })
        .collect()
    };
    let (x, g) = (&taken(x, d_in)[..], &taken(g, d_out)[..]);
    let (h, w) = (&taken(h, a_rows)[..], &taken(w, gate_len(config))[..]);
    let (dh, dl) = (&taken(dh, a_rows)[..], &taken(dl, gate_len(config))[..]);
    // Without what a row of the gate has beside experts.
    let gate_len = gate_len(config);
    let dl: Vec<Approx> = dl.chunks_exact(gate_len).flat_map(|dl| &dl[..experts]).copied().collect();
    let router = match config.gate() {
        Gate::One | Gate::Given | Gate::Router(Logits::Given, ..) => Vec::new(),
        Gate::Router(Logits::Input { .. }, ..) => outer(&dl, experts, x, d_in),
        Gate::Router(Logits::Latent { .. }, ..) => outer(&dl, experts, h, rank),
    };
    let router_bias = if config.gate().has_bias() {
        outer(&dl, experts, &vec![Approx::exact(1.0); dl.len() / experts], 1)
    } else {
        Vec::new()
    };
    let b = (0..experts)
        .map(|i| {
            let weighted = |(token, h)| {
                of_expert(config, h, i).iter().enumerate().map(move |(j, &h)| {
                    let h = drops.of_h(token, i * rank + j, h);
                    scaling * counted(config, w[token * gate_len + i]) * h
                })
            };
            let z: Vec<Approx> = h.chunks_exact(a_rows).enumerate().flat_map(weighted).collect();
            outer(g, d_out, &z, rank)
        })
        .collect();
    let dh: Vec<Approx> = dh.iter().map(|&dh| drops.scaled(dh)).collect();
    let seen: Vec<Approx> =
        x.iter().enumerate().map(|(at, &x)| drops.of_x(at / d_in, at % d_in, x)).collect();
    Adapter { a: outer(&dh, a_rows, &seen, d_in), router, router_bias, b }
}

/// `Z^T X` summed over tokens: rows x columns.
fn outer(z: &[Approx], rows: usize, x: &[Approx], columns: usize) -> Vec<Approx> {
    (0..rows)
        .flat_map(|r| (0..columns).map(move |c| dot(column(z, r, rows).zip(column(x, c, columns)))))
        .collect()
}
