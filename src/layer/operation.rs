//! The operations on a layer, and their options: what is computed, whatever the number of tokens.

use crate::element::Element;

/// Whether an operation overwrites its result or adds to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum WriteMode {
    /// What was there is ignored, whatever it is.
    #[default]
    Overwrite,
    /// The result is added to what is there.
    Accumulate,
}

impl WriteMode {
    /// How often the result's memory is accessed: written, and perhaps read.
    pub(crate) fn passes(self) -> u64 {
        match self {
            Self::Overwrite => 1,
            Self::Accumulate => 2,
        }
    }
}

// Rows of a matrix may start further apart than they are long, by a multiple of four elements, so that an
// operation reads or writes some columns of a wider matrix in place.

/// Options of a forward: `y (+)= s * sum_i softmax(l)_i B_i A x`.
///
/// Tensors: `x` (T x `d_in`), `parameters` (the packed adapter, [`Layout`](crate::Layout)), `y` (T x `d_out`)
/// and, with `save`, `saved` (T x [`Config::state_len`](crate::Config::state_len), f32).
///
/// Source: HydraLoRA (NeurIPS 2024) equations 4 to 6; the released `Linear.forward`, without W0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ForwardOptions {
    /// Whether y is overwritten or added to: to what the frozen layer has put there, `W0 x + bias`.
    pub write: WriteMode,
    /// Training: whether `[h, w]` are saved for the backward operations.
    pub save: bool,
    /// x's elements.
    pub x: Element,
    /// Elements from one row of x to the next, where rows are not dense.
    pub x_stride: Option<u32>,
    /// The parameters' elements; f32 in training, where backward reads them too.
    pub parameters: Element,
    /// y's elements.
    pub y: Element,
    /// Elements from one row of y to the next, where rows are not dense.
    pub y_stride: Option<u32>,
}

/// Options of the backward with respect to the input.
///
/// ```text
/// v_i  = s * B_i^T g            dw_i = v_i . h
/// dl   = w * (dw - sum_i w_i dw_i)
/// dh   = sum_i w_i v_i          (+ W_g^T dl for the latent router)
/// dx (+)= A^T dh                (+ W_g^T dl for the input router)
/// ```
///
/// Tensors: `g` (dL/dy, T x `d_out`), `parameters` (f32), `saved` (as forward left it), `dstate`
/// (T x [`Config::state_len`](crate::Config::state_len), f32; receives `[dh, dl]` for
/// [`BackwardParamsOptions`]) and, where wanted, `dx` (T x `d_in`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BackwardInputOptions {
    /// g's elements.
    pub g: Element,
    /// Elements from one row of g to the next, where rows are not dense.
    pub g_stride: Option<u32>,
    /// dx's elements, and whether it is overwritten or added to; none where dx is not wanted, as in a model's
    /// first layer.
    pub dx: Option<(Element, WriteMode)>,
    /// Elements from one row of dx to the next, where rows are not dense.
    pub dx_stride: Option<u32>,
}

impl Default for BackwardInputOptions {
    /// Everything f32; dx is wanted, and overwritten.
    fn default() -> Self {
        let dx = Some((Element::default(), WriteMode::default()));
        Self { g: Element::default(), g_stride: None, dx, dx_stride: None }
    }
}

/// Options of the backward with respect to the parameters.
///
/// ```text
/// dA = sum_t dh x^T      dB_i = s * sum_t w_i g h^T      dW_g = sum_t dl x^T  (latent: dl h^T)
/// ```
///
/// Tensors: `x` (T x `d_in`), `g` (T x `d_out`), `saved` (as forward left it), `dstate` (as the input's backward
/// left it) and `gradients` (packed like the parameters, f32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BackwardParamsOptions {
    /// Whether gradients are overwritten, or added to those of other tokens.
    pub write: WriteMode,
    /// x's elements.
    pub x: Element,
    /// Elements from one row of x to the next, where rows are not dense.
    pub x_stride: Option<u32>,
    /// g's elements.
    pub g: Element,
    /// Elements from one row of g to the next, where rows are not dense.
    pub g_stride: Option<u32>,
}

/// Which product a frozen layer computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum LinearDirection {
    /// `y (+)= W0 x + bias`: the source is x, T x `d_in`, the target y, T x `d_out`.
    #[default]
    Forward,
    /// `dx (+)= W0^T g`: the source is g, T x `d_out`, the target dx, T x `d_in`.
    Backward,
}

impl LinearDirection {
    /// The names of source and target.
    #[must_use]
    pub fn names(self) -> [&'static str; 2] {
        match self {
            Self::Forward => ["x", "y"],
            Self::Backward => ["g", "dx"],
        }
    }
}

/// Options of the frozen layer, `y = W0 x + bias`, and of its input's gradient, `dx = W0^T g`.
///
/// Tensors: `x` and `y`, or `g` and `dx`, by [`LinearDirection`]; `weight` (W0, `d_out` x `d_in`) and, where
/// there is one, `bias` (`d_out`, f32). Only the widths of the layer's configuration count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LinearOptions {
    /// Which product.
    pub direction: LinearDirection,
    /// Whether a bias is added; only forward.
    pub bias: bool,
    /// Whether the target is overwritten or added to.
    pub write: WriteMode,
    /// The elements of x or g.
    pub source: Element,
    /// Elements from one row of x or g to the next, where rows are not dense.
    pub source_stride: Option<u32>,
    /// W0's elements.
    pub weight: Element,
    /// The elements of y or dx.
    pub target: Element,
    /// Elements from one row of y or dx to the next, where rows are not dense.
    pub target_stride: Option<u32>,
}

/// An operation on the tokens of a layer, with its options. What each binds, by name, stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "one variant per kernel, named after it")]
pub enum Operation {
    Forward(ForwardOptions),
    BackwardInput(BackwardInputOptions),
    BackwardParams(BackwardParamsOptions),
    Linear(LinearOptions),
}

impl Operation {
    /// Its kernel's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::BackwardInput(_) => "backward_input",
            Self::BackwardParams(_) => "backward_params",
            Self::Linear(_) => "linear",
        }
    }

    /// Forward and both backward operations of a training step, as the crate's front page has it: y and dx
    /// are added to what the frozen layer made of them, and gradients are overwritten. Activations are of one
    /// type, parameters and gradients in f32.
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
