//! Twin of `shaders/kernel/backward_input.wgsl`.

use super::dropout::Drops;
use super::forward::{counted, of_expert, scaled, unchosen, unconditional};
use super::{Approx, Extras, column, dot, dot_onto, gate_len, inner, row};
use crate::layer::{Adapter, Config, Gate, GateGradient, Logits, Sharing, Weighting};

/// The results of backward with respect to the input.
#[derive(Debug, Clone, PartialEq)]
pub struct InputGradient {
    /// The adapter's contribution to `dL/dx`, added to `base` if there is one: tokens x `d_in`.
    pub dx: Vec<Approx>,
    /// `dL/dh`: tokens x the rows of A.
    pub dh: Vec<Approx>,
    /// `dL/dl`, or with given weights `dL/dw`: tokens x experts. Where forward saves one number more than weights,
    /// it is zero here.
    pub dl: Vec<Approx>,
}

/// Computes the input gradient from `g = dL/dy` (tokens x `d_out`), and from `h` (tokens x the rows of A) and `w`
/// (tokens x experts, and what else there is) as forward saved them. If dx is accumulated, `base` is its old contents: tokens x
/// `d_in`.
///
/// # Panics
/// If the arrays do not have the configuration's shapes.
#[must_use]
pub fn backward_input(
    config: &Config,
    parameters: &Adapter<Approx>,
    h: &[Approx],
    w: &[Approx],
    g: &[Approx],
    extras: &Extras<'_>,
    base: Option<&[Approx]>,
) -> InputGradient {
    let [d_in, d_out, rank, experts] =
        [config.d_in, config.d_out, config.rank, config.experts].map(|n| n as usize);
    let a_rows = config.a_rows() as usize;
    let scaling = Approx::rounded(f64::from(config.scaling));
    let mut output = InputGradient { dx: Vec::new(), dh: Vec::new(), dl: Vec::new() };
    let drops = Drops::new(config, extras.random);
    for (token, g) in g.chunks_exact(d_out).enumerate() {
        if !extras.takes(token) {
            let zero = Approx::exact(0.0);
            output.dx.extend((0..d_in).map(|c| base.map_or(zero, |base| base[token * d_in + c])));
            output.dh.extend(vec![zero; a_rows]);
            output.dl.extend(vec![zero; gate_len(config)]);
            continue;
        }
        let (h, saved) = (row(h, token, a_rows), row(w, token, gate_len(config)));
        // v_i = s * B_i^T g
        let v: Vec<Vec<Approx>> = (0..experts)
            .map(|i| {
                let b = &parameters.b[i];
                (0..rank)
                    .map(|j| scaling * dot(column(b, j, rank).zip(g.iter().copied())))
                    .enumerate()
                    .map(|(j, v)| drops.of_h(token, i * rank + j, v))
                    .collect()
            })
            .collect();
        let mut dw: Vec<Approx> =
            v.iter().enumerate().map(|(i, v)| inner(v, of_expert(config, h, i))).collect();
        let w: &Vec<Approx> = &saved[..experts].iter().map(|&w| counted(config, w)).collect();
        let add = |gradients: &mut [Approx], added: &[Approx]| {
            let added = row(added, token, experts);
            gradients.iter_mut().zip(added).for_each(|(gradient, &added)| *gradient = *gradient + added);
        };
        let of_softmax = match extras.gate_gradient {
            Some((GateGradient::Losses, _)) if !extras.counts(token) => None,
            Some((GateGradient::Losses, added)) if config.gate().has_softmax() => {
                Some(row(added, token, experts))
            }
            Some((GateGradient::Weights(_) | GateGradient::Losses, added)) => {
                add(&mut dw, added);
                None
            }
            Some((GateGradient::Logits(_), _)) | None => None,
        };
        let mean = inner(w, &dw);
        let of_losses = of_softmax.map(|gradient| of_losses(config, saved, gradient, extras.z_factor));
        let mut dl: Vec<Approx> = match config.gate() {
            Gate::One => vec![Approx::exact(0.0)],
            Gate::Given => dw.clone(),
            Gate::Router(_, weighting, _) => (0..experts)
                .map(|i| {
                    let slope = slope(config, weighting, [saved, w, &dw], mean, i);
                    let slope = of_losses.as_ref().map_or(slope, |of_losses| slope + of_losses[i]);
                    scaled(config, slope)
                })
                .collect(),
        };
        if let Some((GateGradient::Logits(_), added)) = extras.gate_gradient {
            add(&mut dl, added);
        }
        let dh: Vec<Approx> = (0..a_rows)
            .map(|row| {
                // Row j of an A that all experts share, or of one expert's.
                let (j, users) = match config.a {
                    Sharing::Shared => (row, 0..experts),
                    Sharing::Separate => (row % rank, row / rank..row / rank + 1),
                };
                let through_experts = users.map(|i| (w[i], v[i][j]));
                match config.gate() {
                    Gate::One | Gate::Given | Gate::Router(Logits::Input { .. } | Logits::Given, ..) => {
                        dot(through_experts)
                    }
                    Gate::Router(Logits::Latent { .. }, ..) => dot(
                        through_experts.chain(dl.iter().copied().zip(column(&parameters.router, j, rank)))
                    ),
                }
            })
            .collect();
        for c in 0..d_in {
            let through_a = dh.iter().copied().zip(column(&parameters.a, c, d_in));
            // With dropout of x, what comes through A is complete before anything is added to it.
            let through_a: Vec<_> = if drops.drops_x() {
                let sum = drops.of_x(token, c, drops.scaled(dot(through_a)));
                vec![(sum, Approx::exact(1.0))]
            } else {
                through_a.collect()
            };
            let through_a = through_a.into_iter();
            let base = base.map(|base| base[token * d_in + c]);
            output.dx.push(match config.gate() {
                Gate::Router(Logits::Input { .. }, ..) => {
                    let through_router = dl.iter().copied().zip(column(&parameters.router, c, d_in));
                    dot_onto(base, through_a.chain(through_router))
                }
                Gate::One | Gate::Given | Gate::Router(..) => dot_onto(base, through_a),
            });
        }
        output.dh.extend(dh);
        dl.resize(gate_len(config), Approx::exact(0.0));
        output.dl.extend(dl);
    }
    output
}

/// What a router's losses add to the gradients of the logits, without the temperature:
/// `p * (gradient - sum_i p_i gradient_i + factor * z)`, with the softmax p of all experts and the logsumexp z.
fn of_losses(
    config: &Config,
    saved: &[Approx],
    gradient: &[Approx],
    z_factor: Option<Approx>,
) -> Vec<Approx> {
    let p = unconditional(config, saved);
    let mean = inner(&p, gradient);
    let of_z = z_factor.filter(|_| config.logsumexp).map(|factor| factor * saved[config.experts as usize]);
    let slope = |(&p, &gradient): (&Approx, &Approx)| {
        let apart = gradient - mean;
        p * of_z.map_or(apart, |of_z| apart + of_z)
    };
    p.iter().zip(gradient).map(slope).collect()
}

/// The gradient of logit i, without the temperature, from `[saved, w, dw]` of a token: what forward saved, the weights
/// that count, and their gradients. `mean` is `sum_i w_i dw_i`.
fn slope(
    config: &Config,
    weighting: Weighting,
    [saved, w, dw]: [&[Approx]; 3],
    mean: Approx,
    i: usize,
) -> Approx {
    let experts = config.experts as usize;
    match weighting {
        Weighting::Softmax | Weighting::TopK { renormalise: true, .. } => w[i] * (dw[i] - mean),
        // The softmax of an expert that was not chosen has a gradient too, through the denominator.
        Weighting::TopK { renormalise: false, .. } => {
            let dw = match unchosen(config, saved[i]) {
                (false, false) => dw[i],
                (false, true) => Approx { bound: dw[i].bound + dw[i].value.abs(), ..dw[i] },
                (true, false) => Approx::exact(0.0),
                (true, true) => Approx { value: 0.0, bound: dw[i].bound + dw[i].value.abs() },
            };
            Approx { value: saved[i].value.abs(), ..saved[i] } * (dw - mean)
        }
        Weighting::Sigmoid => w[i] * (Approx::exact(1.0) - w[i]) * dw[i],
        Weighting::NormalisedSigmoid => w[i] * (Approx::exact(1.0) - saved[experts] * w[i]) * (dw[i] - mean),
    }
}
