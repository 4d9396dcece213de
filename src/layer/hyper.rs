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
    /// What differs between A, B and the router.
    pub groups: Groups,
}

/// The optimiser's constants of each group of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Groups {
    /// A.
    pub a: GroupHyper,
    /// Every `B_i`. LoRA+ (Hayou et al. 2024) gives it 16 times the rate.
    pub b: GroupHyper,
    /// `W_g`, and the router's bias.
    pub router: GroupHyper,
}

/// The constants of one group of parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupHyper {
    /// A factor of the learning rate, finite and at least 0.
    pub rate: f32,
    /// Its weight decay, if not [`AdamWHyper::weight_decay`].
    pub weight_decay: Option<f32>,
}

impl Default for GroupHyper {
    /// The same as for all.
    fn default() -> Self {
        Self { rate: 1.0, weight_decay: None }
    }
}

/// A group of parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ParameterGroup {
    /// A.
    A,
    /// Every `B_i`.
    B,
    /// `W_g`, and the router's bias.
    Router,
}

impl Groups {
    /// The constants, by the numbers that shaders know groups by.
    pub(crate) fn all(&self) -> [GroupHyper; 3] {
        [self.a, self.b, self.router]
    }

    /// The constants of a group.
    #[must_use]
    pub fn of(&self, group: ParameterGroup) -> GroupHyper {
        self.all()[group as usize]
    }
}

impl Default for AdamWHyper {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            weight_decay: 0.01,
            max_norm: None,
            groups: Groups::default(),
        }
    }
}

/// Refuses a number that is not `valid`.
pub(crate) fn check_number(
    name: &'static str,
    value: f32,
    valid: bool,
    expected: &'static str,
) -> Result<(), Error> {
    if valid { Ok(()) } else { Err(Error::number(name, f64::from(value), expected)) }
}

impl AdamWHyper {
    /// Whether groups of parameters differ.
    pub(crate) fn has_groups(&self) -> bool {
        self.groups != Groups::default()
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        const POSITIVE: &str = "finite, and at least f32's smallest normal number, 1.2e-38";
        let positive = |value: f32| value >= f32::MIN_POSITIVE && value.is_finite();
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            check_number(name, beta, (0.0..1.0).contains(&beta), "at least 0 and below 1")?;
        }
        check_number("epsilon", self.epsilon, positive(self.epsilon), POSITIVE)?;
        let decay = self.weight_decay;
        check_number("weight_decay", decay, decay >= 0.0 && decay.is_finite(), "finite and at least 0")?;
        for (names, group) in [
            ["the rate of A", "the weight_decay of A"],
            ["the rate of B", "the weight_decay of B"],
            ["the rate of the router", "the weight_decay of the router"],
        ]
        .into_iter()
        .zip(self.groups.all())
        {
            for (name, value) in names.into_iter().zip([group.rate, group.weight_decay.unwrap_or(0.0)]) {
                check_number(name, value, value >= 0.0 && value.is_finite(), "finite and at least 0")?;
            }
        }
        self.max_norm
            .map_or(Ok(()), |max_norm| check_number("max_norm", max_norm, positive(max_norm), POSITIVE))
    }
}
