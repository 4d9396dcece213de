//! Twin of `shaders/adamw.wgsl` and `shaders/gradient_norm.wgsl`.

use super::{Approx, dot};
use crate::op::AdamWHyper;

/// AdamW's moments, one of each per parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// The first moment m.
    pub first: Vec<Approx>,
    /// The second moment v.
    pub second: Vec<Approx>,
}

/// What global-norm clipping multiplies gradients by: `min(1, max_norm / (norm + 1e-6))`, or 1.
#[must_use]
pub fn clip_factor(max_norm: Option<f32>, gradients: &[Approx]) -> Approx {
    let one = Approx::exact(1.0);
    let Some(max_norm) = max_norm else { return one };
    let norm = dot(gradients.iter().map(|&g| (g, g))).sqrt();
    let factor = Approx::exact(f64::from(max_norm)).divide(norm + Approx::rounded(1e-6));
    if factor.value < 1.0 { factor } else { one }
}

/// Step number `step` (the first is 1): updates parameters and moments.
///
/// # Panics
/// When the arrays differ in length.
pub fn adamw(
    hyper: &AdamWHyper,
    step: u32,
    learning_rate: f32,
    parameters: &mut [Approx],
    gradients: &[Approx],
    moments: &mut Moments,
) {
    let [beta1, beta2] = [hyper.beta1, hyper.beta2].map(f64::from);
    let exponent = f64::from(step);
    let learning_rate = f64::from(learning_rate);
    let decay = Approx::rounded(1.0 - learning_rate * f64::from(hyper.weight_decay));
    let step_size = Approx::rounded(learning_rate / (1.0 - beta1.powf(exponent)));
    let second_scale = Approx::rounded((1.0 - beta2.powf(exponent)).sqrt().recip());
    let one = Approx::exact(1.0);
    let [beta1, beta2] = [beta1, beta2].map(Approx::exact);
    let clip = clip_factor(hyper.max_norm, gradients);
    for (at, parameter) in parameters.iter_mut().enumerate() {
        let gradient = clip * gradients[at];
        let first = beta1 * moments.first[at] + (one - beta1) * gradient;
        let second = beta2 * moments.second[at] + (one - beta2) * gradient * gradient;
        moments.first[at] = first;
        moments.second[at] = second;
        let denominator = second.sqrt() * second_scale + Approx::exact(f64::from(hyper.epsilon));
        *parameter = decay * *parameter - (step_size * first).divide(denominator);
    }
}
