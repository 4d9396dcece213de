//! The methods that can be compared with plain LoRA.

use hydralora::{Config, Sharing, Weighting};

/// A method from the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Variant {
    /// One A for all experts, weighted by the softmax of the router's logits
    Hydralora,
    /// An A for each expert, likewise weighted
    Loramoe,
    /// An A for each expert, of which each token takes two, whose weights are divided by their sum
    Mola,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hydralora => "HydraLoRA",
            Self::Loramoe => "LoRAMoE",
            Self::Mola => "MoLA",
        }
    }
}

/// A layer of `config` as a variant has it, whose tokens take `top` experts, if not as many as usual.
pub fn varied(config: Config, variant: Variant, top: Option<u32>) -> Config {
    let (a, usual) = match variant {
        Variant::Hydralora => (Sharing::Shared, None),
        Variant::Loramoe => (Sharing::Separate, None),
        Variant::Mola => (Sharing::Separate, Some(2.min(config.experts))),
    };
    let weighting = top.or(usual).map_or(Weighting::Softmax, |k| Weighting::TopK { k, renormalise: true });
    Config { a, weighting, ..config }
}
