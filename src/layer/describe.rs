//! A layer in words.

use std::fmt::{self, Display, Formatter};

use super::config::{Config, Gate, Logits, Sharing, Weighting};
use super::dropout::DropoutOf;
use super::operation::{
    BackwardInputOptions, BackwardParamsOptions, ForwardOptions, GateGradient, GateGradientsOptions,
    GateLossesOptions, GateRows, LinearDirection, LinearOptions, Operation, WriteMode,
};
use crate::element::Element;

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

impl Operation {
    /// The operation on a layer in words: its name, the layer, and the options that are not the default.
    pub(crate) fn in_words(&self, config: &Config) -> String {
        // Inference drops nothing.
        let drops = !matches!(self, Self::Forward(ForwardOptions { save: false, .. }));
        let layer = Config { dropout: config.dropout.filter(|_| drops), ..*config };
        [format!("{} of {layer}", self.name())]
            .into_iter()
            .chain(self.options())
            .collect::<Vec<_>>()
            .join("; ")
    }

    fn options(&self) -> Vec<String> {
        let mut options = Vec::new();
        let mut say = |is: bool, words: &str| {
            if is {
                options.push(words.to_owned());
            }
        };
        let (elements, rows) = match *self {
            Self::Forward(ForwardOptions { write, save, x, parameters, y, gates, mask, .. }) => {
                say(write == WriteMode::Accumulate, "added to y");
                say(save, "saving h and w");
                say(mask, "with a mask");
                (vec![("x", x), ("parameters", parameters), ("y", y)], gates)
            }
            Self::BackwardInput(BackwardInputOptions { g, dx, gate_gradient, mask, .. }) => {
                say(dx.is_none(), "without dx");
                say(matches!(dx, Some((_, WriteMode::Accumulate))), "added to dx");
                say(
                    matches!(gate_gradient, Some(GateGradient::Weights(_))),
                    "a gradient of the weights added",
                );
                say(matches!(gate_gradient, Some(GateGradient::Logits(_))), "a gradient of the logits added");
                say(matches!(gate_gradient, Some(GateGradient::Losses)), "the losses' gradient added");
                say(mask, "with a mask");
                let dx = dx.map(|(element, _)| ("dx", element));
                (
                    [("g", g)].into_iter().chain(dx).collect(),
                    gate_gradient.map_or(GateRows::Token, GateGradient::rows),
                )
            }
            Self::BackwardParams(BackwardParamsOptions { write, x, g, mask, .. }) => {
                say(write == WriteMode::Accumulate, "added to the gradients");
                say(mask, "with a mask");
                (vec![("x", x), ("g", g)], GateRows::Token)
            }
            Self::Linear(LinearOptions { direction, bias, write, source, weight, target, .. }) => {
                let [read, written] = direction.names();
                say(direction == LinearDirection::Backward, "backward");
                say(bias, "with a bias");
                say(write == WriteMode::Accumulate, "added to what is there");
                (vec![(read, source), ("weight", weight), (written, target)], GateRows::Token)
            }
            Self::GateGradients(GateGradientsOptions { rows }) => (Vec::new(), rows),
            Self::GateLosses(GateLossesOptions { mask, .. }) => {
                say(mask, "with a mask");
                (Vec::new(), GateRows::Token)
            }
        };
        match rows {
            GateRows::Token => {}
            GateRows::Sequence(tokens) => options.push(format!("a row of gates for {tokens} tokens")),
            GateRows::Batch => options.push("one row of gates".to_owned()),
        }
        let half = elements.into_iter().filter(|(_, element)| *element != Element::F32);
        options.extend(half.map(|(tensor, element)| format!("{tensor} in {element}")));
        options
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Dropout, Router};

    #[test]
    fn operations_in_words_have_what_is_not_the_default() {
        let layer =
            Config { d_in: 64, d_out: 32, rank: 8, dropout: Some(Dropout::new(0.25)), ..Config::DEFAULT };
        let layer = Config { experts: 1, scaling: 2.0, ..layer };
        let words = |operation: Operation| operation.in_words(&layer);
        let inference = Operation::Forward(ForwardOptions { x: Element::F16, ..Default::default() });
        assert_eq!(words(inference), "forward of LoRA 64 -> 32, rank 8, scaling 2; x in f16");
        let forward =
            ForwardOptions { save: true, mask: true, write: WriteMode::Accumulate, ..Default::default() };
        assert_eq!(
            words(Operation::Forward(forward)),
            "forward of LoRA 64 -> 32, rank 8, scaling 2, dropout of x 0.25; added to y; saving h and w; with a mask"
        );
        let gate_gradient = Some(GateGradient::Logits(GateRows::Sequence(7)));
        let backward = BackwardInputOptions { gate_gradient, dx: None, ..Default::default() };
        assert_eq!(
            words(Operation::BackwardInput(backward)),
            "backward_input of LoRA 64 -> 32, rank 8, scaling 2, dropout of x 0.25; without dx; a gradient of the \
             logits added; a row of gates for 7 tokens"
        );
    }

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
