//! The layer's configuration: its shape, its scaling and its router.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::dropout::{Dropout, DropoutOf};
use crate::error::Error;

/// The router's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Router {
    /// Logits `W_g x`, where `W_g` is experts x `d_in`: the released HydraLoRA code.
    #[default]
    Input,
    /// Logits `W_g A x`, where `W_g` is experts x rank: the formula in the paper.
    Latent,
    /// No router: the caller gives the weights, any numbers, as the tensor `gates` of forward
    /// ([`GateRows`](crate::GateRows)), and finds their gradient for each token in `dstate`, after dh; their sums where
    /// tokens share a row are in [`GateGradientsOptions`](crate::GateGradientsOptions). Also for one expert.
    GivenWeights,
    /// No router: the caller gives the logits in the same way, and finds their gradient in the same place.
    GivenLogits,
}

/// Whose A an expert has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Sharing {
    /// One A for all experts: HydraLoRA.
    #[default]
    Shared,
    /// An `A_i` for each expert, beside its `B_i`: a mixture of `LoRA`s, such as `LoRAMoE`. The router reads x.
    Separate,
}

/// How the router's logits become the experts' weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Weighting {
    /// The softmax over all experts: HydraLoRA.
    #[default]
    Softmax,
    /// The softmax over all experts for those `k` with the largest weights, and zero for the others. Of equal weights,
    /// the lower index counts as larger. Gradients flow through the chosen alone.
    TopK {
        /// How many experts are chosen: 1 to all.
        k: u32,
        /// Whether the chosen weights are divided by their sum (`MoLA`). Otherwise all logits have a gradient through
        /// the softmax's denominator.
        renormalise: bool,
    },
    /// The sigmoid of each logit; one expert has a router too.
    Sigmoid,
    /// The sigmoid of each logit, divided by their sum. The sum begins with 1e-20, so that no weight is NaN where all
    /// sigmoids are zero.
    NormalisedSigmoid,
}

impl Weighting {
    /// Whether some experts get no weight. Theirs are saved with a minus, because backward and the losses need them.
    pub(crate) fn chooses(self) -> bool {
        matches!(self, Self::TopK { .. })
    }

    /// Whether the weights of the chosen are divided by their sum.
    pub(crate) fn is_renormalised(self) -> bool {
        matches!(self, Self::TopK { renormalise: true, .. })
    }

    /// Whether the weights are divided by their sum, which is saved after them because backward needs it.
    pub(crate) fn has_total(self) -> bool {
        self == Self::NormalisedSigmoid
    }

    /// Whether the weights are a softmax, or come from one.
    pub(crate) fn has_softmax(self) -> bool {
        matches!(self, Self::Softmax | Self::TopK { .. })
    }
}

/// One HydraLoRA layer: `y = W0 x + scaling * sum_i softmax(l)_i B_i A x`.
///
/// Source: Tian et al., "HydraLoRA: An Asymmetric LoRA Architecture for Efficient Fine-Tuning",
/// NeurIPS 2024, equations 4 to 6. One expert is plain LoRA: its weight is 1, unless weights are given or are
/// sigmoids. Such a layer has no router parameters and no router state, and no kernel computes logits.
///
/// ```
/// use hydralora::Config;
///
/// let config = Config {
///     d_in: 4096,
///     d_out: 4096,
///     rank: 8,
///     experts: 4,
///     scaling: Config::lora_scaling(16.0, 8),
///     ..Config::default()
/// };
/// assert_eq!(config.scaling, 2.0);
/// assert_eq!(config.parameter_count(), (8 + 4) * 4096 + 4 * 8 * 4096);
/// ```
#[derive(Debug, Clone, Copy)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Config {
    /// Length of a token's input.
    pub d_in: u32,
    /// Length of a token's output.
    pub d_out: u32,
    /// Rows of A (or of each `A_i`), columns of each `B_i`.
    pub rank: u32,
    /// Number of expert matrices `B_i`.
    pub experts: u32,
    /// The factor s of the experts' sum.
    pub scaling: f32,
    /// The router's input.
    pub router: Router,
    /// Whether experts share A, or each has one of its own.
    #[cfg_attr(feature = "serde", serde(default))]
    pub a: Sharing,
    /// How logits become weights.
    #[cfg_attr(feature = "serde", serde(default))]
    pub weighting: Weighting,
    /// Whether the router has a bias, which is added to the logits and trained.
    #[cfg_attr(feature = "serde", serde(default))]
    pub router_bias: bool,
    /// By what the logits are divided before they become weights: above 0.
    #[cfg_attr(feature = "serde", serde(default = "one"))]
    pub temperature: f32,
    /// Whether forward saves, after the weights, the logarithm of the sum that the softmax divides by:
    /// `z = log sum_i exp(l_i / temperature)`, which the z-loss needs
    /// ([`GateLossesOptions`](crate::GateLossesOptions)).
    #[cfg_attr(feature = "serde", serde(default))]
    pub logsumexp: bool,
    /// Dropout in training, if there is any.
    #[cfg_attr(feature = "serde", serde(default))]
    pub dropout: Option<Dropout>,
}

/// The temperature of a layer that was stored without one.
#[cfg(feature = "serde")]
fn one() -> f32 {
    1.0
}

impl Default for Config {
    /// [`Config::DEFAULT`].
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// All fields of a layer, with the numbers by their bits. Layers with equal keys compute the same bits.
type Key = ([u32; 6], Router, Sharing, Weighting, [bool; 2], Option<[u32; 3]>);

impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Config {}

impl PartialOrd for Config {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Config {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Hash for Config {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl Config {
    /// A layer of plain LoRA without dimensions: one expert, a scaling of 1. `d_in`, `d_out` and `rank` must
    /// be set: they are 0, which every operation that uses them refuses. This is [`Default`], usable in
    /// constants.
    pub const DEFAULT: Self = Self {
        d_in: 0,
        d_out: 0,
        rank: 0,
        experts: 1,
        scaling: 1.0,
        router: Router::Input,
        a: Sharing::Shared,
        weighting: Weighting::Softmax,
        router_bias: false,
        temperature: 1.0,
        logsumexp: false,
        dropout: None,
    };

    fn key(&self) -> Key {
        let Self { d_in, d_out, rank, experts, scaling, .. } = *self;
        let Self { router, a, weighting, router_bias, temperature, logsumexp, dropout, .. } = *self;
        let numbers = [d_in, d_out, rank, experts, scaling.to_bits(), temperature.to_bits()];
        (numbers, router, a, weighting, [router_bias, logsumexp], dropout.map(|dropout| dropout.key()))
    }

    /// LoRA's scaling, `alpha / rank`.
    #[must_use]
    pub fn lora_scaling(alpha: f32, rank: u32) -> f32 {
        alpha / rank as f32
    }

    /// Rank-stabilised LoRA's scaling, `alpha / sqrt(rank)`.
    #[must_use]
    pub fn rslora_scaling(alpha: f32, rank: u32) -> f32 {
        alpha / (rank as f32).sqrt()
    }

    /// Trainable parameters, without the layout's padding.
    #[must_use]
    pub fn parameter_count(&self) -> u64 {
        let [d_in, d_out, rank, experts] = [self.d_in, self.d_out, self.rank, self.experts].map(u64::from);
        let gate = self.gate();
        let router = gate.router_columns(self).saturating_add(gate.has_bias().into());
        let router = experts.saturating_mul(router.into());
        let experts = experts.saturating_mul(rank).saturating_mul(d_out);
        u64::from(self.a_rows()).saturating_mul(d_in).saturating_add(experts).saturating_add(router)
    }

    /// Rows of A, and numbers in h: the rank, or with an A for each expert experts * rank.
    #[must_use]
    pub fn a_rows(&self) -> u32 {
        match self.a {
            Sharing::Shared => self.rank,
            Sharing::Separate => self.rank.saturating_mul(self.experts),
        }
    }

    /// Numbers per token in `saved` (`[h, w]`, which forward saves for backward) and in `dstate` (`[dh, dl]`,
    /// which `backward_input` passes on): the rows of A + experts, or only the rows of A for one expert. With top-k, w of an
    /// expert that was not chosen is its softmax with a minus, and counts as zero. Normalised
    /// sigmoids take one number more, their sum, and so does [`Config::logsumexp`]; in `dstate` it is zero.
    #[must_use]
    pub fn state_len(&self) -> u32 {
        self.gate().state_len(self.a_rows(), self.experts)
    }

    /// Bytes of the tensor `saved` for `tokens` tokens, and also of `dstate`:
    /// tokens x [`Config::state_len`] x 4.
    #[must_use]
    pub fn state_bytes(&self, tokens: u32) -> u64 {
        (4 * u64::from(tokens)).saturating_mul(u64::from(self.state_len()))
    }

    /// The source of the experts' weights.
    pub(crate) fn gate(&self) -> Gate {
        let Self { experts, router, weighting, router_bias, logsumexp, .. } = *self;
        let logits = match router {
            Router::GivenWeights => return Gate::Given,
            Router::Input => Logits::Input { bias: router_bias },
            Router::Latent => Logits::Latent { bias: router_bias },
            Router::GivenLogits => Logits::Given,
        };
        match (experts, logits, weighting) {
            (1, Logits::Input { .. } | Logits::Latent { .. }, _) if weighting != Weighting::Sigmoid => {
                Gate::One
            }
            _ => Gate::Router(logits, weighting, logsumexp),
        }
    }

    /// The dropout in training, unless it drops nothing.
    pub(crate) fn drops(&self) -> Option<Dropout> {
        self.dropout.filter(|dropout| dropout.threshold() > 0)
    }

    /// Whether it drops elements of x.
    pub(crate) fn drops_input(&self) -> bool {
        self.drops().is_some_and(|dropout| dropout.of == DropoutOf::Input)
    }

    /// Rows of the shrink block: A's, and the input router's.
    pub(crate) fn shrink_rows(&self) -> u32 {
        self.gate().shrink_rows(self.a_rows(), self.experts)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        Error::check_dimension("d_in", self.d_in)?;
        Error::check_dimension("d_out", self.d_out)?;
        Error::check_dimension("rank", self.rank)?;
        Error::check_dimension("experts", self.experts)?;
        let exclusive = |option, other| Err(Error::Exclusive { option, other });
        if let (Gate::Router(Logits::Latent { .. }, ..), Sharing::Separate) = (self.gate(), self.a) {
            return exclusive("an A for each expert", "the latent router, which reads one h");
        }
        if let Weighting::TopK { k, .. } = self.weighting
            && (k == 0 || k > self.experts)
        {
            let expected = format!("at least 1, and at most the number of experts, {}", self.experts);
            return Err(Error::number("k", f64::from(k), expected));
        }
        let is_given = self.router == Router::GivenWeights;
        match self.weighting {
            Weighting::TopK { .. } if is_given => return exclusive("top-k", "given weights"),
            Weighting::Sigmoid | Weighting::NormalisedSigmoid if is_given => {
                return exclusive("a sigmoid of the logits", "given weights");
            }
            _ => {}
        }
        if self.router_bias && (is_given || self.router == Router::GivenLogits) {
            return exclusive("a router's bias", "given weights or logits, which have no router");
        }
        if !(self.temperature.is_finite() && self.temperature >= f32::MIN_POSITIVE) {
            let (name, value, expected) = ("temperature", f64::from(self.temperature), "above 0 and finite");
            return Err(Error::number(name, value, expected));
        }
        if is_given && self.temperature != 1.0 {
            return exclusive("a temperature", "given weights");
        }
        if self.logsumexp {
            let needed = "weights that are no softmax of logits";
            match self.gate() {
                Gate::One => return exclusive("the logsumexp of logits", "one expert, which has none"),
                Gate::Router(_, weighting, _) if weighting.has_softmax() => {}
                Gate::Given | Gate::Router(..) => return exclusive("the logsumexp of logits", needed),
            }
        }
        if let Some(dropout) = self.dropout {
            dropout.check()?;
        }
        if !self.scaling.is_finite() {
            let (name, value, expected) = ("scaling", f64::from(self.scaling), "finite");
            return Err(Error::number(name, value, expected));
        }
        Ok(())
    }
}

/// The source of the experts' weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Gate {
    /// One expert, with weight 1.
    One,
    /// Weights that the caller gives.
    Given,
    /// Weights from logits, and whether the logsumexp of these is saved.
    Router(Logits, Weighting, bool),
}

/// The source of the logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Logits {
    /// `W_g x`, and a bias if there is one.
    Input { bias: bool },
    /// `W_g h`, and a bias if there is one.
    Latent { bias: bool },
    /// What the caller gives.
    Given,
}

impl Gate {
    /// Rows of the shrink block: A's, and the input router's.
    pub(crate) fn shrink_rows(self, a_rows: u32, experts: u32) -> u32 {
        match self {
            Self::Router(Logits::Input { .. }, ..) => a_rows.saturating_add(experts),
            Self::One | Self::Given | Self::Router(..) => a_rows,
        }
    }

    /// Columns of the latent router: the rank, or 0 without one.
    pub(crate) fn latent_columns(self, rank: u32) -> u32 {
        match self {
            Self::Router(Logits::Latent { .. }, ..) => rank,
            Self::One | Self::Given | Self::Router(..) => 0,
        }
    }

    pub(crate) fn has_bias(self) -> bool {
        matches!(self, Self::Router(Logits::Input { bias: true } | Logits::Latent { bias: true }, ..))
    }

    /// Columns of the gate block, which has a row for each expert: the latent router's, and the bias; 0 without them.
    pub(crate) fn block_columns(self, rank: u32) -> u32 {
        self.latent_columns(rank).saturating_add(self.has_bias().into())
    }

    /// Columns of `W_g`: 0 without a router.
    pub(crate) fn router_columns(self, config: &Config) -> u32 {
        match self {
            Self::Router(Logits::Input { .. }, ..) => config.d_in,
            Self::Router(Logits::Latent { .. }, ..) => config.rank,
            Self::One | Self::Given | Self::Router(Logits::Given, ..) => 0,
        }
    }

    /// Whether forward reads `gates`.
    pub(crate) fn is_given(self) -> bool {
        matches!(self, Self::Given | Self::Router(Logits::Given, ..))
    }

    pub(crate) fn chooses(self) -> bool {
        matches!(self, Self::Router(_, weighting, _) if weighting.chooses())
    }

    pub(crate) fn is_renormalised(self) -> bool {
        matches!(self, Self::Router(_, weighting, _) if weighting.is_renormalised())
    }

    pub(crate) fn has_softmax(self) -> bool {
        matches!(self, Self::Router(_, weighting, _) if weighting.has_softmax())
    }

    pub(crate) fn has_logsumexp(self) -> bool {
        matches!(self, Self::Router(.., true))
    }

    /// Numbers that the losses of the router give: the gradient of each expert's weight, and the factor of the z-loss if there is one.
    pub(crate) fn losses_len(self, experts: u32) -> u32 {
        experts.saturating_add(self.has_logsumexp().into())
    }

    /// Numbers per token that are saved for backward: h; the weights, if there are several experts; and what else
    /// backward needs of them.
    pub(crate) fn state_len(self, a_rows: u32, experts: u32) -> u32 {
        match self {
            Self::One => a_rows,
            Self::Given => a_rows.saturating_add(experts),
            Self::Router(_, weighting, logsumexp) => {
                a_rows.saturating_add(experts).saturating_add((weighting.has_total() || logsumexp).into())
            }
        }
    }
}
