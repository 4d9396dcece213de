//! The optimiser's constants.

use crate::error::Error;

/// AdamW's constants. [`Default`] is PyTorch's: betas 0.9 and 0.999, epsilon 1e-8, weight decay
/// 0.01, no clipping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWHyper {
    /// Decay of the first moment, in 0..1.
    pub beta1: f32,
    /// Decay of the second moment, in 0..1.
    pub beta2: f32,
    /// Added to the denominator. At least f32's smallest normal number, because devices may flush smaller
    /// numbers to zero.
    pub epsilon: f32,
    /// Decoupled weight decay, at least 0: each step first scales parameters by `1 - lr * weight_decay`.
    pub weight_decay: f32,
    /// Gradients whose global norm exceeds this are scaled down to it, by `min(1, max_norm / (norm + 1e-6))`,
    /// as in PyTorch's `clip_grad_norm_`. At least f32's smallest normal number.
    ///
    /// With it, the device skips a step whose norm is NaN, infinite or too large for f32: parameters and
    /// moments keep their bits, and [`AdamWStatus`](crate::AdamWStatus) counts the step. A norm that fits f32
    /// is correct even where squares of gradients do not fit. `Some(f32::MAX)` skips such steps and never
    /// clips.
    ///
    /// Without it there is no norm, and no step is skipped: a gradient that is NaN or infinite ruins its own
    /// element, and no other. So may a gradient beyond 1.8e19 that is not scaled down, with or without
    /// clipping: f32 cannot hold its square, so its second moment may become infinite, as in PyTorch.
    pub max_norm: Option<f32>,
}

impl Default for AdamWHyper {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_norm: None }
    }
}

/// Refuses a number that is not `valid`.
pub(crate) fn check_number(
    name: &'static str,
    value: f32,
    valid: bool,
    expected: &'static str,
) -> Result<(), Error> {
    if valid { Ok(()) } else { Err(Error::InvalidNumber { name, value: f64::from(value), expected }) }
}

impl AdamWHyper {
    pub(crate) fn check(&self) -> Result<(), Error> {
        const POSITIVE: &str = "finite, and at least f32's smallest normal number, 1.2e-38";
        let positive = |value: f32| value >= f32::MIN_POSITIVE && value.is_finite();
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            check_number(name, beta, (0.0..1.0).contains(&beta), "at least 0 and below 1")?;
        }
        check_number("epsilon", self.epsilon, positive(self.epsilon), POSITIVE)?;
        let decay = self.weight_decay;
        check_number("weight_decay", decay, decay >= 0.0 && decay.is_finite(), "finite and at least 0")?;
        self.max_norm
            .map_or(Ok(()), |max_norm| check_number("max_norm", max_norm, positive(max_norm), POSITIVE))
    }
}
