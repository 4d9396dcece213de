//! The numbers in the tensors of cases.

use std::fmt::{self, Display};

use hydralora::{Adapter, Config, Layout, Router, Weighting};
use rand::RngExt as _;
use rand::rngs::StdRng;

/// A kind of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inputs {
    /// Uniform in -1..1.
    Noise,
    /// Activations around 1 / sqrt(width), so that every product is around 1.
    Gentle,
    /// Activations all zero.
    Zeros,
    /// One element of each token's activations is 1, all others are zero.
    OneHot,
    /// Activations around 2^24.
    Huge,
    /// Activations around 2^-40.
    Tiny,
    /// Activations below the smallest normal number.
    Denormal,
    /// Logits in the hundreds, whose exponentials overflow, so that one expert gets all the weight.
    Saturated,
    /// All logits zero, so that all experts get the same weight.
    Indifferent,
    /// One NaN in one token.
    Nan,
    /// One infinity in one token.
    Infinity,
}

impl Inputs {
    /// The kinds for which every result is finite.
    pub const FINITE: [Self; 9] = [
        Self::Noise,
        Self::Gentle,
        Self::Zeros,
        Self::OneHot,
        Self::Huge,
        Self::Tiny,
        Self::Denormal,
        Self::Saturated,
        Self::Indifferent,
    ];

    /// The number that poisons one token.
    pub fn poison(self) -> Option<f32> {
        match self {
            Self::Nan => Some(f32::NAN),
            Self::Infinity => Some(f32::INFINITY),
            _ => None,
        }
    }

    /// The token that is poisoned.
    pub fn poisoned_token(self, tokens: u32) -> Option<u32> {
        self.poison().map(|_| tokens / 2)
    }

    fn scale(self) -> f32 {
        match self {
            Self::Zeros => 0.0,
            Self::Huge => 2.0f32.powi(24),
            Self::Tiny => 2.0f32.powi(-40),
            Self::Denormal => 2.0f32.powi(-130),
            _ => 1.0,
        }
    }

    /// x, g, or an optimiser's gradients: rows x width.
    pub fn activations(self, rng: &mut StdRng, rows: u32, width: u32) -> Vec<f32> {
        let mut values = noise(rng, rows * width);
        if self == Self::OneHot {
            values.fill(0.0);
            for row in values.chunks_exact_mut(width as usize) {
                row[rng.random_range(0..width as usize)] = 1.0;
            }
        }
        let scale = if self == Self::Gentle { (width as f32).sqrt().recip() } else { self.scale() };
        for value in &mut values {
            *value *= scale;
        }
        if let (Some(poison), Some(token)) = (self.poison(), self.poisoned_token(rows)) {
            // The first element of the row: a read past the end of the previous row would find it.
            values[(token * width) as usize] = poison;
        }
        values
    }

    /// The packed adapter. With huge activations the router is scaled down, so that logits stay moderate.
    pub fn parameters(self, rng: &mut StdRng, config: &Config) -> Vec<f32> {
        let router = match self {
            Self::Saturated => 400.0,
            Self::Indifferent => 0.0,
            Self::Huge => 1.0 / self.scale(),
            _ => 1.0,
        };
        let Config { d_in, d_out, rank, experts, .. } = *config;
        let router_columns = match config.router {
            Router::Input => d_in,
            Router::Latent => rank,
            Router::GivenWeights | Router::GivenLogits => 0,
        };
        let adapter = Adapter {
            a: noise(rng, config.a_rows() * d_in),
            router: noise(rng, experts * router_columns).iter().map(|weight| weight * router).collect(),
            b: (0..experts).map(|_| noise(rng, d_out * rank)).collect(),
            router_bias: if config.router_bias { noise(rng, experts) } else { Vec::new() },
        };
        config.layout().and_then(|layout| layout.pack(&adapter)).expect("matching shapes")
    }

    /// `[h, w]` as a forward could have saved them: w is positive and, but for sigmoids, sums to 1. With one expert
    /// there is no w.
    pub fn state(self, rng: &mut StdRng, tokens: u32, config: &Config) -> Vec<f32> {
        let experts = config.experts;
        let spread = match self {
            Self::Saturated => 400.0,
            Self::Indifferent => 0.0,
            _ => 1.0,
        };
        let mut state = Vec::new();
        for _ in 0..tokens {
            state.extend(noise(rng, config.a_rows()).iter().map(|h| h * self.scale()));
            if config.state_len() == config.a_rows() {
                continue;
            }
            let logits: Vec<f32> = noise(rng, experts).iter().map(|logit| logit * spread).collect();
            if let Weighting::Sigmoid | Weighting::NormalisedSigmoid = config.weighting {
                let sigmoids = logits.iter().map(|logit| 1.0 / (1.0 + (-logit).exp()));
                let normalised = config.weighting == Weighting::NormalisedSigmoid;
                let total: f32 = if normalised { sigmoids.clone().sum::<f32>() + 1e-20 } else { 1.0 };
                state.extend(sigmoids.map(|sigmoid| sigmoid / total));
                state.extend(normalised.then_some(total));
                continue;
            }
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let exponentials: Vec<f32> = logits.iter().map(|logit| (logit - largest).exp()).collect();
            let total: f32 = exponentials.iter().sum();
            let logsumexp = config.logsumexp.then_some(largest + total.ln());
            let Weighting::TopK { k, renormalise } = config.weighting else {
                state.extend(exponentials.iter().map(|e| e / total));
                state.extend(logsumexp);
                continue;
            };
            let mut order: Vec<usize> = (0..exponentials.len()).collect();
            order.sort_by(|&a, &b| exponentials[b].total_cmp(&exponentials[a]));
            let of_chosen: f32 = order[..k as usize].iter().map(|&i| exponentials[i]).sum();
            state.extend(exponentials.iter().enumerate().map(|(i, exponential)| {
                match (order[..k as usize].contains(&i), renormalise) {
                    (true, true) => exponential / of_chosen,
                    (true, false) => exponential / total,
                    (false, _) => -exponential / total,
                }
            }));
            state.extend(logsumexp);
        }
        if let (Some(poison), Some(token)) = (self.poison(), self.poisoned_token(tokens)) {
            let first = (token * config.state_len()) as usize;
            state[first] = poison;
            if config.state_len() > config.a_rows() {
                state[first + config.a_rows() as usize] = poison;
            }
        }
        state
    }
}

/// Noise in the packed layout with zero padding: gradients to accumulate into.
pub fn packed_noise(rng: &mut StdRng, layout: &Layout) -> Vec<f32> {
    let mut packed = vec![0.0; layout.len()];
    for block in [Some(layout.shrink()), Some(layout.expand()), layout.gate()].into_iter().flatten() {
        for row in 0..block.rows() {
            let range = block.row(row);
            let len = range.len() as u32;
            packed[range].copy_from_slice(&noise(rng, len));
        }
    }
    packed
}

/// Gradients of consecutive steps. Their norm is NaN, infinite, too large for f32, or fits f32 although sums
/// of squares do not. Ordinary gradients come in between and at the end.
pub fn difficult_gradients(rng: &mut StdRng, len: u32) -> Vec<Vec<f32>> {
    let last = len as usize - 1;
    let middle = last / 2;
    let mut steps = Vec::new();
    let poisoned = |rng: &mut StdRng, poisons: &[(usize, f32)]| {
        let mut gradients = noise(rng, len);
        for &(at, poison) in poisons {
            gradients[at] = poison;
        }
        gradients
    };
    let least_nan = f32::from_bits(0x7f80_0001);
    for poison in [f32::NAN, -f32::NAN, least_nan, f32::INFINITY, f32::NEG_INFINITY] {
        steps.extend([0, 1, 2, 3, middle, last].map(|at| poisoned(rng, &[(at, poison)])));
        steps.push(noise(rng, len));
    }
    for pair in [[f32::INFINITY, f32::NEG_INFINITY], [f32::NAN, f32::INFINITY], [f32::INFINITY, f32::NAN]] {
        steps.push(poisoned(rng, &[(0, pair[0]), (last, pair[1])]));
    }
    let at = |places: &[usize], number: f32| {
        let mut gradients = vec![0.0; len as usize];
        for &at in places {
            gradients[at] = number;
        }
        gradients
    };
    let scaled = |rng: &mut StdRng, scale: f32| noise(rng, len).iter().map(|n| n * scale).collect();
    steps.extend([
        // f32 holds the norm of one such number, but not of two.
        at(&[last], 3e38),
        at(&[0], -3e38),
        at(&[0, last], 3e38),
        vec![3e38; len as usize],
        vec![1e20; len as usize],
        vec![1e-30; len as usize],
        scaled(rng, 2f32.powi(110)),
        // Numbers in two of the ranges that the norm sums separately, neither of them negligible.
        scaled(rng, 2f32.powi(49)),
        scaled(rng, 2f32.powi(-47)),
        at(&[middle], f32::MIN_POSITIVE),
        at(&[], 0.0),
        noise(rng, len),
    ]);
    steps
}

/// Numbers in -1..1.
pub fn noise(rng: &mut StdRng, len: u32) -> Vec<f32> {
    (0..len).map(|_| rng.random_range(-1.0..1.0)).collect()
}

impl Display for Inputs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Noise => "noise",
            Self::Gentle => "gentle",
            Self::Zeros => "zeros",
            Self::OneHot => "one-hot",
            Self::Huge => "huge",
            Self::Tiny => "tiny",
            Self::Denormal => "denormal",
            Self::Saturated => "saturated-router",
            Self::Indifferent => "indifferent-router",
            Self::Nan => "nan-in-one-token",
            Self::Infinity => "infinity-in-one-token",
        })
    }
}
