//! A layer in words.

use std::fmt::{self, Display, Formatter};

use super::config::{Config, Gate, Logits, Sharing, Weighting};
use super::dropout::DropoutOf;

impl Display for Config {
    /// The variant that its options make, with its numbers: for logs and reports.
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        let Self { d_in, d_out, rank, experts, scaling, temperature, logsumexp, .. } = *self;
        write!(formatter, "{} {d_in} -> {d_out}, rank {rank}", self.variant())?;
        if experts > 1 {
            let whose = if self.a == Sharing::Shared { "one A" } else { "an A for each" };
            write!(formatter, ", {experts} experts with {whose}")?;
        }
        match self.gate() {
            Gate::One => {}
            Gate::Given => write!(formatter, ", given weights")?,
            Gate::Router(logits, weighting, _) => {
                write!(formatter, ", {}", Weights(weighting))?;
                match logits {
                    Logits::Input { bias } => write!(formatter, " of W_g x{}", plus(bias))?,
                    Logits::Latent { bias } => write!(formatter, " of W_g A x{}", plus(bias))?,
                    Logits::Given => write!(formatter, " of given logits")?,
                }
                if temperature != 1.0 {
                    write!(formatter, " at temperature {temperature}")?;
                }
                if logsumexp {
                    write!(formatter, " with its logsumexp")?;
                }
            }
        }
        write!(formatter, ", scaling {scaling}")?;
        if let Some(dropout) = self.drops() {
            let of = if dropout.of == DropoutOf::Input { "x" } else { "h" };
            write!(formatter, ", dropout of {of} {}", dropout.probability)?;
        }
        Ok(())
    }
}

impl Config {
    /// The method whose layer this is, by its gate and its A.
    fn variant(&self) -> &'static str {
        match (self.gate(), self.a) {
            (Gate::One, _) => "LoRA",
            (Gate::Router(_, Weighting::Softmax, _), Sharing::Shared) => "HydraLoRA",
            (Gate::Router(_, Weighting::TopK { .. }, _), Sharing::Shared) => "sparse HydraLoRA",
            (Gate::Router(Logits::Input { bias: false }, Weighting::Softmax, _), Sharing::Separate) => {
                "LoRAMoE"
            }
            (
                Gate::Router(Logits::Input { bias: false }, Weighting::TopK { renormalise: true, .. }, _),
                Sharing::Separate,
            ) => "MoLA",
            (_, Sharing::Shared) => "LoRA with several B",
            (_, Sharing::Separate) => "mixture of LoRAs",
        }
    }
}

fn plus(bias: bool) -> &'static str {
    if bias { " + bias" } else { "" }
}

struct Weights(Weighting);

impl Display for Weights {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            Weighting::Softmax => write!(formatter, "softmax"),
            Weighting::TopK { k, renormalise: true } => {
                write!(formatter, "renormalised top {k} of the softmax")
            }
            Weighting::TopK { k, renormalise: false } => write!(formatter, "top {k} of the softmax"),
            Weighting::Sigmoid => write!(formatter, "sigmoids"),
            Weighting::NormalisedSigmoid => write!(formatter, "normalised sigmoids"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Dropout, Router};

    #[test]
    fn words_name_the_variant_and_its_numbers() {
        let layer = Config { d_in: 64, d_out: 32, rank: 8, experts: 4, scaling: 2.0, ..Config::DEFAULT };
        let top = Weighting::TopK { k: 2, renormalise: true };
        for (config, words) in [
            (layer, "HydraLoRA 64 -> 32, rank 8, 4 experts with one A, softmax of W_g x, scaling 2"),
            (Config { experts: 1, ..layer }, "LoRA 64 -> 32, rank 8, scaling 2"),
            (
                Config { a: Sharing::Separate, weighting: top, temperature: 0.5, ..layer },
                "MoLA 64 -> 32, rank 8, 4 experts with an A for each, renormalised top 2 of the softmax of W_g x at \
                 temperature 0.5, scaling 2",
            ),
            (
                Config { router: Router::Latent, router_bias: true, weighting: Weighting::Sigmoid, ..layer },
                "LoRA with several B 64 -> 32, rank 8, 4 experts with one A, sigmoids of W_g A x + bias, scaling 2",
            ),
            (
                Config { router: Router::GivenWeights, dropout: Some(Dropout::new(0.25)), ..layer },
                "LoRA with several B 64 -> 32, rank 8, 4 experts with one A, given weights, scaling 2, dropout of x 0.25",
            ),
        ] {
            assert_eq!(config.to_string(), words);
        }
    }
}
