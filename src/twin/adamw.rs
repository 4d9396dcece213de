//! Twin of `shaders/kernel/adamw.wgsl`, `gradient_norm.wgsl` and `gradient_norm_reduce.wgsl`.

use super::{Approx, C, U};
use crate::layer::{AdamWHyper, ParameterGroup};

/// AdamW's moments: one first and one second moment per parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// The first moment m.
    pub first: Vec<Approx>,
    /// The second moment v.
    pub second: Vec<Approx>,
}

/// The gradients' norm as f32 holds it: exactly NaN if a gradient is NaN, and exactly infinite if a gradient
/// is infinite or the norm is too large.
#[must_use]
pub fn gradient_norm(gradients: &[Approx]) -> Approx {
    // float64 holds the square of any f32.
    let length = |of: fn(&Approx) -> f64| gradients.iter().map(|g| of(g).powi(2)).sum::<f64>().sqrt();
    let value = length(|gradient| gradient.value);
    if value.is_nan() || value > f64::from(f32::MAX) {
        return Approx::exact(if value.is_nan() { value } else { f64::INFINITY });
    }
    // The errors of the gradients change the norm by at most the norm of the errors (triangle inequality).
    // The root halves the relative error of the sum. No square is too large or too small for the sum.
    let sum = C * U * (gradients.len() as f64).sqrt() * value / 2.0;
    Approx { value, bound: length(|gradient| gradient.bound) + sum }.with_rounding(10.0)
}

/// What a step has besides its gradients.
#[derive(Debug, Clone, Copy)]
pub struct AdamWStep {
    /// Its number; the first is 1.
    pub number: u32,
    /// The learning rate.
    pub learning_rate: f32,
    /// The factor of the gradients.
    pub gradient_scale: f32,
}

/// A gradient times `min(1, max_norm / (norm + 1e-6))`.
fn clip(max_norm: f32, norm: Approx, gradient: Approx) -> Approx {
    let norm = norm + Approx::rounded(1e-6);
    let max_norm = f64::from(max_norm);
    if norm.value + norm.bound <= max_norm {
        return gradient;
    }
    // As in the shader, so that anything it flushes to zero is small compared with the result.
    let unit = Approx::exact(if norm.value > 2f64.powi(64) { 2f64.powi(-64) } else { 1.0 });
    let clipped = Approx::exact(max_norm).divide(norm * unit) * (gradient * unit);
    if norm.value > max_norm { clipped } else { Approx { value: gradient.value, ..clipped } }
}

/// Updates parameters and moments, each parameter as its group is. With clipping, it returns the norm; if the norm is
/// not finite, it skips the step.
///
/// # Panics
/// If the arrays differ in length.
pub fn adamw(
    hyper: &AdamWHyper,
    step: &AdamWStep,
    groups: &[ParameterGroup],
    parameters: &mut [Approx],
    gradients: &[Approx],
    moments: &mut Moments,
) -> Option<Approx> {
    let norm = hyper.max_norm.map(|max_norm| (max_norm, gradient_norm(gradients)));
    if let Some((_, norm)) = norm
        && !norm.value.is_finite()
    {
        return Some(norm);
    }
    let [beta1, beta2] = [hyper.beta1, hyper.beta2].map(f64::from);
    let AdamWStep { number, learning_rate, gradient_scale } = *step;
    let exponent = f64::from(number);
    let correction = 1.0 - beta1.powf(exponent);
    // A factor of 1 changes nothing.
    let scaled = |number: Approx| match gradient_scale {
        1.0 => number,
        scale => Approx::exact(f64::from(scale)) * number,
    };
    let second_scale = Approx::rounded((1.0 - beta2.powf(exponent)).sqrt().recip());
    let one = Approx::exact(1.0);
    let [beta1, beta2] = [beta1, beta2].map(Approx::exact);
    for (at, parameter) in parameters.iter_mut().enumerate() {
        let group = hyper.groups.of(groups[at]);
        let rate = f64::from(learning_rate) * f64::from(group.rate);
        let weight_decay = f64::from(group.weight_decay.unwrap_or(hyper.weight_decay));
        let (decay, step_size) =
            (Approx::rounded(1.0 - rate * weight_decay), Approx::rounded(rate / correction));
        let gradient = scaled(gradients[at]);
        let gradient = norm.map_or(gradient, |(max_norm, norm)| clip(max_norm, scaled(norm), gradient));
        let first = beta1 * moments.first[at] + (one - beta1) * gradient;
        let second = beta2 * moments.second[at] + (one - beta2) * gradient * gradient;
        moments.first[at] = first;
        moments.second[at] = second;
        let denominator = second.sqrt() * second_scale + Approx::exact(f64::from(hyper.epsilon));
        *parameter = decay * *parameter - (step_size * first).divide(denominator);
    }
    norm.map(|(_, norm)| norm)
}
