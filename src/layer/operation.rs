//! The operations on a layer and their options, which do not depend on the number of tokens.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

use super::hyper::check_number;
use crate::element::Element;
use crate::error::Error;

/// Whether an operation overwrites its result or adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum WriteMode {
    /// The old contents are ignored, whatever they are.
    #[default]
    Overwrite,
    /// The result is added to the old contents.
    Accumulate,
}

impl WriteMode {
    /// Accesses to the result's memory: one write, and one read when accumulating.
    pub(crate) fn passes(self) -> u64 {
        match self {
            Self::Overwrite => 1,
            Self::Accumulate => 2,
        }
    }
}

// A stride lets rows of a matrix start further apart than they are long, at multiples of four elements, so
// that an operation can read or write some columns of a wider matrix in place.

/// Options of forward: `y (+)= s * sum_i softmax(l)_i B_i A x`.
///
/// Tensors: `x` (T x `d_in`), `parameters` (the packed adapter, [`Layout`](crate::Layout)), `y` (T x `d_out`)
/// and, with `save`, `saved` (T x [`Config::state_len`](crate::Config::state_len), f32); with given weights or logits
/// ([`Router`](crate::Router)) also `gates` (rows by [`GateRows`] x experts, f32).
///
/// Source: HydraLoRA (NeurIPS 2024) equations 4 to 6; the released `Linear.forward`, without W0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ForwardOptions {
    /// Whether y is overwritten or added to, such as to the output of the frozen layer, `W0 x + bias`.
    pub write: WriteMode,
    /// Training: whether `[h, w]` are saved for the backward operations.
    pub save: bool,
    /// The element type of x.
    pub x: Element,
    /// Elements from the start of a row of x to the start of the next, if rows are not dense.
    pub x_stride: Option<u32>,
    /// The element type of the parameters; f32 in training, because backward reads them too.
    pub parameters: Element,
    /// The element type of y.
    pub y: Element,
    /// Elements from the start of a row of y to the start of the next, if rows are not dense.
    pub y_stride: Option<u32>,
    /// Which tokens share a row of given weights or logits.
    #[cfg_attr(feature = "serde", serde(default))]
    pub gates: GateRows,
    /// Whether some tokens take no adapter: those whose number in the tensor `mask` (T, f32) is zero. Their y is
    /// left as it is, or overwritten with zeros, whatever their x is.
    #[cfg_attr(feature = "serde", serde(default))]
    pub mask: bool,
}

/// Which tokens share a row of weights, logits or their gradients, where the caller gives these.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GateRows {
    /// None: each has its own.
    #[default]
    Token,
    /// This many that follow each other: the tokens of a sequence.
    Sequence(u32),
    /// All.
    Batch,
}

impl GateRows {
    /// How many tokens share a row.
    pub(crate) fn tokens(self) -> u32 {
        match self {
            Self::Token => 1,
            Self::Sequence(tokens) => tokens,
            Self::Batch => u32::MAX,
        }
    }

    /// How many rows there are for `tokens` tokens.
    #[must_use]
    pub fn count(self, tokens: u32) -> u32 {
        tokens.div_ceil(self.tokens().max(1))
    }
}

/// A gradient that the caller adds to that of a router: that of any loss on its weights or logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum GateGradient {
    /// dL/dw, with respect to the weights.
    Weights(GateRows),
    /// dL/dl, with respect to the logits, before the temperature.
    Logits(GateRows),
    /// What [`Operation::GateLosses`] gives: one row of dL/dw for all tokens, with top-k of the softmax before experts are
    /// chosen; and the factor of the z-loss where the layer has one.
    Losses,
}

impl GateGradient {
    /// Which tokens share a row of it.
    #[must_use]
    pub fn rows(self) -> GateRows {
        match self {
            Self::Weights(rows) | Self::Logits(rows) => rows,
            Self::Losses => GateRows::Batch,
        }
    }
}

/// Options of backward with respect to the input.
///
/// ```text
/// v_i  = s * B_i^T g            dw_i = v_i . h
/// dl   = w * (dw - sum_i w_i dw_i)
/// dh   = sum_i w_i v_i          (+ W_g^T dl for the latent router)
/// dx (+)= A^T dh                (+ W_g^T dl for the input router)
/// ```
///
/// Tensors: `g` (dL/dy, T x `d_out`), `parameters` (f32), `saved` (as forward wrote it), `dstate`
/// (T x [`Config::state_len`](crate::Config::state_len), f32; receives `[dh, dl]` for
/// [`BackwardParamsOptions`]; with given weights dw in the place of dl); if wanted, `dx` (T x `d_in`); and, if the caller
/// adds one, `gate_gradient` (rows by [`GateRows`] x experts, f32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BackwardInputOptions {
    /// The element type of g.
    pub g: Element,
    /// Elements from the start of a row of g to the start of the next, if rows are not dense.
    pub g_stride: Option<u32>,
    /// The element type of dx, and whether dx is overwritten or added to. `None` if dx is not wanted, as in a
    /// model's first layer.
    pub dx: Option<(Element, WriteMode)>,
    /// Elements from the start of a row of dx to the start of the next, if rows are not dense.
    pub dx_stride: Option<u32>,
    /// What `gate_gradient` is a gradient of, if the caller adds one.
    #[cfg_attr(feature = "serde", serde(default))]
    pub gate_gradient: Option<GateGradient>,
    /// Whether some tokens take no adapter: those whose number in the tensor `mask` (T, f32) is zero. Their dx is
    /// left as it is, or overwritten with zeros, whatever their g is, and they give no gradient. Those whose number is below zero
    /// take it, but the gradient of the router's losses is not theirs. As forward had it, or here alone, for tokens of which
    /// nothing is to be learnt.
    #[cfg_attr(feature = "serde", serde(default))]
    pub mask: bool,
}

impl Default for BackwardInputOptions {
    /// All tensors are f32. dx is wanted, and overwritten.
    fn default() -> Self {
        let dx = Some((Element::default(), WriteMode::default()));
        Self { g: Element::default(), g_stride: None, dx, dx_stride: None, gate_gradient: None, mask: false }
    }
}

/// Options of backward with respect to the parameters.
///
/// ```text
/// dA = sum_t dh x^T      dB_i = s * sum_t w_i g h^T      dW_g = sum_t dl x^T  (latent: dl h^T)
/// ```
///
/// Tensors: `x` (T x `d_in`), `g` (T x `d_out`), `saved` (as forward wrote it), `dstate` (as `backward_input`
/// wrote it) and `gradients` (packed like the parameters, f32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BackwardParamsOptions {
    /// Whether gradients are overwritten, or added to those of other tokens.
    pub write: WriteMode,
    /// The element type of x.
    pub x: Element,
    /// Elements from the start of a row of x to the start of the next, if rows are not dense.
    pub x_stride: Option<u32>,
    /// The element type of g.
    pub g: Element,
    /// Elements from the start of a row of g to the start of the next, if rows are not dense.
    pub g_stride: Option<u32>,
    /// Whether some tokens take no adapter: those whose number in the tensor `mask` (T, f32) is zero. They give no
    /// gradient, whatever their x and g are. As `backward_input` had it.
    #[cfg_attr(feature = "serde", serde(default))]
    pub mask: bool,
}

/// The product that a frozen layer computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum LinearDirection {
    /// `y (+)= W0 x + bias`: the source is x, T x `d_in`, and the target is y, T x `d_out`.
    #[default]
    Forward,
    /// `dx (+)= W0^T g`: the source is g, T x `d_out`, and the target is dx, T x `d_in`.
    Backward,
}

impl LinearDirection {
    /// The names of the source and the target.
    #[must_use]
    pub fn names(self) -> [&'static str; 2] {
        match self {
            Self::Forward => ["x", "y"],
            Self::Backward => ["g", "dx"],
        }
    }
}

/// Options of the frozen layer, `y = W0 x + bias`, and of the gradient of its input, `dx = W0^T g`.
///
/// Tensors: `x` and `y`, or `g` and `dx`, by [`LinearDirection`]; `weight` (W0, `d_out` x `d_in`) and, if
/// there is one, `bias` (`d_out`, f32). Of the layer's configuration, only `d_in` and `d_out` matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LinearOptions {
    /// The product to compute.
    pub direction: LinearDirection,
    /// Whether a bias is added: only forward.
    pub bias: bool,
    /// Whether the target is overwritten or added to.
    pub write: WriteMode,
    /// The element type of x or g.
    pub source: Element,
    /// Elements from the start of a row of x or g to the start of the next, if rows are not dense.
    pub source_stride: Option<u32>,
    /// The element type of W0.
    pub weight: Element,
    /// The element type of y or dx.
    pub target: Element,
    /// Elements from the start of a row of y or dx to the start of the next, if rows are not dense.
    pub target_stride: Option<u32>,
}

/// Options of the gradients of given weights or logits that tokens share: one dispatch after `backward_input`, which
/// leaves each token's gradient in `dstate`.
///
/// Tensors: `dstate` (as `backward_input` wrote it) and `gate_gradients` (rows by [`GateRows`] x experts, f32; receives
/// the sums over the tokens of each row).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GateGradientsOptions {
    /// Which tokens share a row, as forward had it.
    pub rows: GateRows,
}

/// Options of the losses of a router, which keep its experts in use. Their gradient is for
/// [`BackwardInputOptions::gate_gradient`], as [`GateGradient::Losses`].
///
/// ```text
/// balance = N * sum_i f_i P_i                  spread = var(I) / (mean(I)^2 + 1e-10)
/// z-loss  = mean_t z_t^2                       z_t    = log sum_i exp(l_i / temperature)
/// ```
///
/// with the experts' shares f of the tokens that chose them, mean weights P and summed weights I. A token chooses the
/// expert with the largest weight, with top-k all that have one. With top-k, P and I are of the softmax before the choice,
/// so that experts that are not chosen have a gradient too. Tokens that a mask leaves out do not count, nor do those with
/// weights that are NaN or infinite. The z-loss, which keeps logits small, needs
/// [`Config::logsumexp`](crate::Config::logsumexp).
///
/// Tensors: `saved` (as forward wrote it); `gate_gradient` (experts, f32; receives their gradient; with `logsumexp` one number more,
/// the factor of the z-loss); `report` (5 + 2 x experts, f32; receives the number of tokens, balance, spread, the mean
/// entropy of the weights in nats, the z-loss, each f and each P); and `mask`, if there is one.
///
/// Source: Fedus et al., "Switch Transformers", equation 4; Shazeer et al., "Outrageously Large Neural Networks",
/// equation 6 (squared coefficient of variation), with PyTorch's variance and importances before the choice; Zoph et al., "ST-MoE", equation 5.
#[derive(Debug, Clone, Copy, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct GateLossesOptions {
    /// The coefficient of the balance in the gradient.
    pub balance: f32,
    /// The coefficient of the spread in the gradient.
    pub spread: f32,
    /// The coefficient of the z-loss in the gradient.
    #[cfg_attr(feature = "serde", serde(default))]
    pub z: f32,
    /// Whether some tokens do not count: those whose number in the tensor `mask` (T, f32) is not above zero. Tokens that are to
    /// take the adapter all the same, such as a prompt's, have a number below zero: backward then has the same mask.
    pub mask: bool,
}

impl GateLossesOptions {
    fn key(&self) -> ([u32; 3], bool) {
        ([self.balance, self.spread, self.z].map(f32::to_bits), self.mask)
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        for (name, value) in [("balance", self.balance), ("spread", self.spread), ("z", self.z)] {
            check_number(name, value, value.is_finite(), "finite")?;
        }
        Ok(())
    }
}

impl PartialEq for GateLossesOptions {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for GateLossesOptions {}

impl PartialOrd for GateLossesOptions {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for GateLossesOptions {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl Hash for GateLossesOptions {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

/// An operation on the tokens of a layer, with its options, which list the names of its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "one variant per kernel, named after it")]
pub enum Operation {
    Forward(ForwardOptions),
    BackwardInput(BackwardInputOptions),
    BackwardParams(BackwardParamsOptions),
    Linear(LinearOptions),
    GateGradients(GateGradientsOptions),
    GateLosses(GateLossesOptions),
}

impl Operation {
    /// The name of its kernel.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::BackwardInput(_) => "backward_input",
            Self::BackwardParams(_) => "backward_params",
            Self::Linear(_) => "linear",
            Self::GateGradients(_) => "gate_gradients",
            Self::GateLosses(_) => "gate_losses",
        }
    }

    /// Forward and both backward operations of a training step, as on the crate's front page. y and dx are
    /// added to the results of the frozen layer, and gradients are overwritten. All activations have one
    /// element type; parameters and gradients are f32.
    #[must_use]
    pub fn training_step(activations: Element) -> [Self; 3] {
        let (x, y, g) = (activations, activations, activations);
        let (add, overwrite) = (WriteMode::Accumulate, WriteMode::Overwrite);
        [
            Self::Forward(ForwardOptions { write: add, save: true, x, y, ..ForwardOptions::default() }),
            Self::BackwardInput(BackwardInputOptions {
                g,
                dx: Some((x, add)),
                ..BackwardInputOptions::default()
            }),
            Self::BackwardParams(BackwardParamsOptions {
                write: overwrite,
                x,
                g,
                ..BackwardParamsOptions::default()
            }),
        ]
    }
}

/// What several operations on a layer keep beside their activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Needs {
    /// The widest elements of the packed parameters, if any operation reads them.
    pub(crate) parameters: Option<Element>,
    /// `saved`.
    pub(crate) saved: bool,
    /// `dstate`.
    pub(crate) dstate: bool,
    /// Gradients, and the optimiser's moments with them.
    pub(crate) gradients: bool,
}

impl Needs {
    pub(crate) fn of(operations: &[Operation]) -> Self {
        operations.iter().fold(Self::default(), |needs, operation| match operation {
            Operation::Forward(options) => {
                // The first element type is the widest.
                let parameters =
                    needs.parameters.map_or(options.parameters, |so_far| so_far.min(options.parameters));
                Self { parameters: Some(parameters), saved: needs.saved || options.save, ..needs }
            }
            Operation::BackwardInput(_) => {
                Self { parameters: Some(Element::F32), saved: true, dstate: true, ..needs }
            }
            Operation::BackwardParams(_) => Self { saved: true, dstate: true, gradients: true, ..needs },
            Operation::GateGradients(_) => Self { dstate: true, ..needs },
            Operation::GateLosses(_) => Self { saved: true, ..needs },
            Operation::Linear(_) => needs,
        })
    }
}
