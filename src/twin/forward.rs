//! Twin of `shaders/kernel/forward.wgsl`.

use super::dropout::Drops;
use super::{Approx, Extras, dot, dot_onto, gate_len, inner, row};
use crate::layer::{Adapter, Config, Gate, Logits, Sharing, Weighting};

/// The results of forward.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The adapter's contribution to y, added to `base` if there is one: tokens x `d_out`.
    pub y: Vec<Approx>,
    /// `h = A x`: tokens x the rows of A.
    pub h: Vec<Approx>,
    /// The experts' weights as they are saved: tokens x experts. With top-k, experts that were not chosen have their
    /// softmax with a minus, and count as zero. Normalised sigmoids have their sum as one number more, and so has
    /// `logsumexp`.
    pub w: Vec<Approx>,
    /// The logits, before the temperature: tokens x experts; none where there is no router and none are given.
    pub logits: Vec<Approx>,
}

/// `y = s * sum_i softmax(l)_i B_i A x`, with `l = W_g x` or `W_g A x`, or with other weights. A single expert has
/// weight 1.
///
/// `x` is tokens x `d_in`. If y is accumulated, `base` is its old contents: tokens x `d_out`.
///
/// # Panics
/// If the arrays do not have the configuration's shapes.
#[must_use]
pub fn forward(
    config: &Config,
    parameters: &Adapter<Approx>,
    x: &[Approx],
    extras: &Extras<'_>,
    base: Option<&[Approx]>,
) -> Output {
    let [d_in, d_out, rank, experts] =
        [config.d_in, config.d_out, config.rank, config.experts].map(|n| n as usize);
    let scaling = Approx::rounded(f64::from(config.scaling));
    let mut output = Output { y: Vec::new(), h: Vec::new(), w: Vec::new(), logits: Vec::new() };
    let drops = Drops::new(config, extras.random);
    for (token, x) in x.chunks_exact(d_in).enumerate() {
        if !extras.takes(token) {
            let zero = Approx::exact(0.0);
            output.y.extend((0..d_out).map(|o| base.map_or(zero, |base| base[token * d_out + o])));
            output.h.extend(vec![zero; config.a_rows() as usize]);
            output.w.extend(vec![zero; gate_len(config)]);
            let logits = if let Gate::Router(..) = config.gate() { experts } else { 0 };
            output.logits.extend(vec![zero; logits]);
            continue;
        }
        let seen: Vec<Approx> = x.iter().enumerate().map(|(c, &x)| drops.of_x(token, c, x)).collect();
        let h: Vec<Approx> = (0..config.a_rows() as usize)
            .map(|j| drops.scaled(inner(row(&parameters.a, j, d_in), &seen)))
            .collect();
        let given = || row(extras.gates.expect("weights or logits are given"), token, experts).to_vec();
        let routed = |input: &[Approx]| -> Vec<Approx> {
            let logit = |i: usize| {
                let logit = inner(row(&parameters.router, i, input.len()), input);
                parameters.router_bias.get(i).map_or(logit, |&bias| logit + bias)
            };
            (0..experts).map(logit).collect()
        };
        let w = match config.gate() {
            Gate::One => vec![Approx::exact(1.0)],
            Gate::Given => given(),
            Gate::Router(logits, weighting, _) => {
                let logits = match logits {
                    Logits::Given => given(),
                    Logits::Input { .. } => routed(x),
                    Logits::Latent { .. } => routed(&h),
                };
                let w = weigh(config, weighting, &logits);
                output.logits.extend(logits);
                w
            }
        };
        for o in 0..d_out {
            let base = base.map(|base| base[token * d_out + o]);
            output.y.push(dot_onto(
                base,
                (0..experts).flat_map(|i| {
                    let factor = scaling * counted(config, w[i]);
                    let b = row(&parameters.b[i], o, rank);
                    let read = of_expert(config, &h, i).iter().enumerate();
                    read.zip(b).map(move |((j, &h), &b)| (factor * drops.of_h(token, i * rank + j, h), b))
                }),
            ));
        }
        output.h.extend(h);
        output.w.extend(w);
    }
    output
}

/// The weights, as they are saved, and what follows them.
fn weigh(config: &Config, weighting: Weighting, logits: &[Approx]) -> Vec<Approx> {
    let one = Approx::exact(1.0);
    match weighting {
        Weighting::Softmax | Weighting::TopK { .. } => {
            let (weights, logsumexp) = softmax(config, logits);
            choose(weighting, &weights).into_iter().chain(config.logsumexp.then_some(logsumexp)).collect()
        }
        Weighting::Sigmoid => logits.iter().map(|&logit| sigmoid(scaled(config, logit))).collect(),
        Weighting::NormalisedSigmoid => {
            let sigmoids: Vec<_> = logits.iter().map(|&logit| sigmoid(scaled(config, logit))).collect();
            let least = Approx::rounded(1e-20);
            let total = dot_onto(Some(least), sigmoids.iter().map(|&sigmoid| (sigmoid, one)));
            sigmoids.iter().map(|&sigmoid| sigmoid.divide(total)).chain([total]).collect()
        }
    }
}

/// A number over the temperature, as f32 multiplies with the reciprocal.
pub(super) fn scaled(config: &Config, number: Approx) -> Approx {
    if config.temperature == 1.0 {
        return number;
    }
    let scale = 1.0 / f64::from(config.temperature);
    Approx { value: scale, bound: 5.0 * super::U * scale } * number
}

/// `1 / (1 + exp(-l))`, without an exponential that overflows.
fn sigmoid(logit: Approx) -> Approx {
    let one = Approx::exact(1.0);
    let exponential = Approx { value: -logit.value.abs(), ..logit }.exp();
    if logit.value >= 0.0 { one.divide(one + exponential) } else { exponential.divide(one + exponential) }
}

/// The weights of the chosen experts, as they are saved. Where rounding errors may change the choice, the bound covers
/// either.
fn choose(weighting: Weighting, weights: &[Approx]) -> Vec<Approx> {
    let Weighting::TopK { k, renormalise } = weighting else { return weights.to_vec() };
    let mut order: Vec<usize> = (0..weights.len()).collect();
    // Equal weights keep the order of their indices.
    order.sort_by(|&a, &b| weights[b].value.total_cmp(&weights[a].value));
    let (chosen, others) = order.split_at(k as usize);
    // Equal logits have equal weights on a device too.
    let near = |a: Approx, b: Approx| a.value != b.value && (a.value - b.value).abs() <= a.bound + b.bound;
    let total = dot(chosen.iter().map(|&i| (weights[i], Approx::exact(1.0))));
    let weight = |i: usize| {
        let weight = weights[i];
        let is_chosen = chosen.contains(&i);
        let rivals = if is_chosen { others } else { chosen };
        let doubtful = rivals.iter().any(|&rival| near(weight, weights[rival]));
        let either = |known: Approx, other: f64| {
            let apart = if doubtful { (known.value - other).abs() } else { 0.0 };
            Approx { bound: known.bound + apart, ..known }
        };
        let counts = if renormalise { weight.divide(total) } else { weight };
        let minus = Approx { value: -weight.value, ..weight };
        if is_chosen {
            either(counts, minus.value)
        } else {
            // An expert that is chosen after all has the larger bound.
            let bound = if doubtful { counts.bound } else { minus.bound };
            either(Approx { bound, ..minus }, counts.value)
        }
    };
    (0..weights.len()).map(weight).collect()
}

/// Whether a saved weight is that of an expert that was not chosen, and whether its sign is in doubt.
pub(super) fn unchosen(config: &Config, weight: Approx) -> (bool, bool) {
    let signs = config.weighting.chooses();
    (signs && weight.value.is_sign_negative(), signs && weight.bound > weight.value.abs())
}

/// What a saved weight counts as.
pub(super) fn counted(config: &Config, weight: Approx) -> Approx {
    match unchosen(config, weight) {
        (true, true) => Approx { value: 0.0, bound: weight.bound },
        (true, false) => Approx::exact(0.0),
        (false, _) => weight,
    }
}

/// The weights before any choice, from what forward saved of a token: the softmax, or else the weights.
pub(super) fn unconditional(config: &Config, saved: &[Approx]) -> Vec<Approx> {
    let saved = &saved[..config.experts as usize];
    if !config.weighting.chooses() {
        return saved.to_vec();
    }
    let softmax = |weight: Approx| Approx { value: weight.value.abs(), ..weight };
    if !config.weighting.is_renormalised() {
        return saved.iter().map(|&weight| softmax(weight)).collect();
    }
    let one = Approx::exact(1.0);
    let others = saved.iter().filter(|weight| unchosen(config, **weight).0);
    let of_chosen = dot_onto(Some(one), others.map(|&weight| (weight, one)));
    let before = |&weight: &Approx| {
        if unchosen(config, weight).0 { softmax(weight) } else { weight * of_chosen }
    };
    saved.iter().map(before).collect()
}

/// What an expert has of h, or of dh.
pub(super) fn of_expert<'a>(config: &Config, h: &'a [Approx], expert: usize) -> &'a [Approx] {
    match config.a {
        Sharing::Shared => h,
        Sharing::Separate => row(h, expert, config.rank as usize),
    }
}

/// `exp(l_i - max l) / sum_j exp(l_j - max l)`, with logits over the temperature, and `max l + log sum_j exp(l_j - max l)`.
fn softmax(config: &Config, logits: &[Approx]) -> (Vec<Approx>, Approx) {
    let largest = logits.iter().map(|l| l.value).fold(f64::NEG_INFINITY, f64::max);
    let shifted: Vec<Approx> = logits.iter().map(|&l| l - Approx::exact(largest)).collect();
    let exponentials: Vec<Approx> = shifted.iter().map(|&l| scaled(config, l).exp()).collect();
    let total = dot(exponentials.iter().map(|&e| (e, Approx::exact(1.0))));
    let largest = scaled(config, Approx::exact(largest));
    let logsumexp = largest + total.ln();
    // Each logit's error moves it by no more than itself, with a device's own maximum too.
    let of_logits = logits.iter().map(|&l| scaled(config, l).bound).fold(0.0, f64::max);
    let logsumexp = Approx { bound: logsumexp.bound + of_logits, ..logsumexp };
    (exponentials.into_iter().map(|e| e.divide(total)).collect(), logsumexp)
}
