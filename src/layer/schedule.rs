//! Learning rates over a training: plain functions of the step, as factors of the highest rate. Steps count from 1, as
//! [`AdamW::set_step`](crate::AdamW::set_step) counts them.

/// Grows evenly to 1 in `steps` steps, and stays there: PyTorch's and Hugging Face's `constant_with_warmup`.
///
/// ```
/// use hydralora::schedule;
///
/// assert_eq!([1, 5, 10, 99].map(|step| schedule::warm_up(step, 10)), [0.1, 0.5, 1.0, 1.0]);
/// ```
#[must_use]
pub fn warm_up(step: u32, steps: u32) -> f32 {
    (f64::from(step) / f64::from(steps.max(1))).min(1.0) as f32
}

/// 1 until step `warm`, after a [`warm_up`] of so many steps, then falls evenly, to 0 after step `last`.
#[must_use]
pub fn linear(step: u32, warm: u32, last: u32) -> f32 {
    warm_up(step, warm) * (1.0 - progress(step, warm, last)) as f32
}

/// The same along half a cosine.
#[must_use]
pub fn cosine(step: u32, warm: u32, last: u32) -> f32 {
    warm_up(step, warm) * (0.5 + 0.5 * (std::f64::consts::PI * progress(step, warm, last)).cos()) as f32
}

/// How far a step is on the way from the one after `warm` to the one after `last`, in `0..=1`.
fn progress(step: u32, warm: u32, last: u32) -> f64 {
    let way = f64::from(last.saturating_sub(warm)).max(1.0);
    (f64::from(step.saturating_sub(1).saturating_sub(warm)) / way).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_rise_and_fall() {
        let (warm, last) = (10, 109);
        for schedule in [linear, cosine] {
            let rates: Vec<f32> = (1..=120).map(|step| schedule(step, warm, last)).collect();
            assert_eq!([rates[0], rates[9], rates[10], rates[109]], [0.1, 1.0, 1.0, 0.0]);
            assert!(rates[..10].is_sorted() && rates[9..].iter().rev().is_sorted());
            assert!((rates[59] - 0.51).abs() < 0.01, "{}", rates[59]);
            assert!(rates[108] > 0.0 && rates[108] < 0.02, "the last step still learns");
        }
        // Nothing is divided by zero.
        assert_eq!((linear(1, 0, 1), cosine(2, 0, 0), warm_up(1, 0)), (1.0, 0.0, 1.0));
    }
}
