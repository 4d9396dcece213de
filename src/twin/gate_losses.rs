//! Twin of `shaders/kernel/gate_sums.wgsl` and `gate_losses.wgsl`.

use super::forward::{counted, unconditional};
use super::{Approx, Extras, U, dot, gate_len};
use crate::layer::{Config, GateLossesOptions};

/// The losses of a router.
#[derive(Debug, Clone, PartialEq)]
pub struct GateLosses {
    /// dL/dw, with top-k of the softmax before the choice, for every token the same: one number per expert; then the
    /// factor of the z-loss, if the logsumexp is saved.
    pub gradient: Vec<Approx>,
    /// The tokens, the balance, the spread, the mean entropy, the z-loss, each expert's share of the loads, and each
    /// expert's mean weight, with top-k before the choice.
    pub report: Vec<Approx>,
}

/// `balance = N * sum_i f_i P_i` and `spread = var(I) / (mean(I)^2 + 1e-10)`, with their gradient, from the weights as
/// forward saved them: tokens x experts, and what else there is. Tokens with a number that is not finite do not count.
///
/// # Panics
/// If the weights do not have the configuration's shape.
#[must_use]
pub fn gate_losses(
    config: &Config,
    options: &GateLossesOptions,
    w: &[Approx],
    extras: &Extras<'_>,
) -> GateLosses {
    let experts = config.experts as usize;
    let one = Approx::exact(1.0);
    let rows = || {
        let rows = w.chunks_exact(gate_len(config)).enumerate();
        let is_finite = |row: &[Approx]| row.iter().all(|number| number.value.is_finite());
        rows.filter(move |(token, row)| extras.counts(*token) && is_finite(row)).map(|(_, row)| row)
    };
    let weights: Vec<Vec<Approx>> =
        rows().map(|row| row[..experts].iter().map(|&weight| counted(config, weight)).collect()).collect();
    let before_choice: Vec<Vec<Approx>> = rows().map(|row| unconditional(config, row)).collect();
    let (mut loads, mut importances) = (Vec::new(), Vec::new());
    for i in 0..experts {
        importances.push(dot(before_choice.iter().map(|row| (row[i], one))));
        let load = weights.iter().map(|row| chooses(config, row, i)).fold(
            (0.0, 0.0),
            |(sum, doubts), (chosen, doubt)| {
                (sum + f64::from(u8::from(chosen)), doubts + f64::from(u8::from(doubt)))
            },
        );
        loads.push(Approx { value: load.0, bound: load.1 });
    }
    let tokens = Approx::exact(weights.len().max(1) as f64);
    let total = loads.iter().copied().fold(Approx::exact(0.0), |sum, load| Approx {
        value: sum.value + load.value,
        bound: sum.bound + load.bound,
    });
    let total = if total.value < 1.0 { Approx { value: 1.0, ..total } } else { total };
    let shares: Vec<Approx> = loads.iter().map(|load| load.divide(total)).collect();
    let means: Vec<Approx> = importances.iter().map(|importance| importance.divide(tokens)).collect();
    let count = Approx::exact(experts as f64);
    let balance = count * dot(shares.iter().copied().zip(means.iter().copied()));
    let mean = dot(importances.iter().map(|&importance| (importance, one))).divide(count);
    let apart: Vec<Approx> = importances.iter().map(|&importance| importance - mean).collect();
    let freedoms = Approx::exact((experts as f64 - 1.0).max(1.0));
    let squares = dot(apart.iter().map(|&apart| (apart, apart)));
    // Where differences are next to nothing, the squares of their errors matter.
    let of_errors: f64 = apart.iter().map(|apart| apart.bound.powi(2)).sum();
    let variance = Approx { bound: squares.bound + of_errors, ..squares }.divide(freedoms);
    let square = mean * mean + Approx::rounded(1e-10);
    let spread = variance.divide(square);
    let [balance_scale, spread_scale] =
        [options.balance, options.spread].map(|scale| Approx::exact(f64::from(scale)));
    let two = Approx::exact(2.0);
    let experts_gradient = (0..experts).map(|i| {
        let of_spread = (two * apart[i]).divide(freedoms).divide(square)
            - ((two * variance).divide(square) * mean.divide(square)).divide(count);
        (balance_scale * count * shares[i]).divide(tokens) + spread_scale * of_spread
    });
    let entropy = dot(weights.iter().flat_map(|row| entropies(row)).map(|entropy| (entropy, one)));
    let squares = dot(rows().filter(|_| config.logsumexp).map(|row| (row[experts], row[experts])));
    let z_factor = (two * Approx::exact(f64::from(options.z))).divide(tokens);
    let gradient = experts_gradient.chain(config.logsumexp.then_some(z_factor)).collect();
    let of_batch = Approx::exact(weights.len() as f64);
    let first = [of_batch, balance, spread, entropy.divide(tokens), squares.divide(tokens)];
    GateLosses { gradient, report: first.into_iter().chain(shares.iter().copied()).chain(means).collect() }
}

/// Whether a token chooses an expert, and whether rounding may change that.
fn chooses(config: &Config, row: &[Approx], i: usize) -> (bool, bool) {
    let own = row[i];
    if config.gate().chooses() {
        return (own.value > 0.0, own.bound > 0.0 && own.value.abs() <= own.bound);
    }
    let others = || row.iter().enumerate().filter(|(o, _)| *o != i);
    let before =
        |(o, other): (usize, &Approx)| other.value > own.value || (other.value == own.value && o < i);
    let near = |other: &Approx| {
        other.value != own.value && (other.value - own.value).abs() <= other.bound + own.bound
    };
    (!others().any(before), others().any(|(_, other)| near(other)))
}

/// `-p log p` of each expert, `p` its share of the positive weights.
fn entropies(row: &[Approx]) -> Vec<Approx> {
    let positive: Vec<Approx> = row
        .iter()
        .map(|&weight| if weight.value > 0.0 { weight } else { Approx { value: 0.0, ..weight } })
        .collect();
    let total = dot(positive.iter().map(|&weight| (weight, Approx::exact(1.0))));
    let entropy = |weight: &Approx| {
        if weight.value == 0.0 {
            return Approx::exact(0.0);
        }
        let share = weight.divide(total);
        let Approx { value: log, bound: of_log } = Approx::exact(share.value).ln();
        let bound = (1.0 + log.abs()) * share.bound + share.value * of_log;
        Approx { value: -share.value * log, bound: bound + U * (share.value * log).abs() }
    };
    positive.iter().map(entropy).collect()
}
