//! Comparison of a kernel's results with the twin's, and the distribution of error / bound.

use hydralora::twin::Approx;

/// The ratio error / bound of every element that a case compares.
#[derive(Debug, Default)]
pub struct Ratios {
    seen: Vec<f64>,
    worst: f64,
    worst_at: String,
}

/// The distribution of ratios.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub struct Distribution {
    /// Elements compared.
    pub elements: usize,
    pub median: f64,
    pub worst: f64,
    /// The tensor and the element with the worst ratio.
    pub worst_at: String,
}

impl Ratios {
    /// Compares a tensor with the twin: every element must be finite and within the bound. Outputs start as
    /// NaN, so an element that no thread wrote is not finite. Where the twin is certain of infinity or NaN,
    /// the element must be just that.
    ///
    /// # Errors
    /// The first element that fails.
    pub fn compare(&mut self, name: &str, actual: &[f32], expected: &[Approx]) -> Result<(), String> {
        if actual.is_empty() || actual.len() != expected.len() {
            return Err(format!("{name}: {} elements, {} expected", actual.len(), expected.len()));
        }
        for (at, (&actual, expected)) in actual.iter().zip(expected).enumerate() {
            let Approx { value, bound } = *expected;
            if !value.is_finite() && bound == 0.0 {
                if f64::from(actual) != value && !(actual.is_nan() && value.is_nan()) {
                    return Err(format!("{name}[{at}] is {actual:e}, expected {value}"));
                }
                self.seen.push(0.0);
                continue;
            }
            if !value.is_finite() || !bound.is_finite() {
                return Err(format!("{name}[{at}]: the twin gives {value} with a bound of {bound}"));
            }
            if !actual.is_finite() {
                return Err(format!("{name}[{at}] is {actual}, expected {value:e}"));
            }
            let error = (f64::from(actual) - value).abs();
            let ratio = if error == 0.0 { 0.0 } else { error / bound };
            if ratio > 1.0 {
                return Err(format!(
                    "{name}[{at}] is {actual:e}, expected {value:e}: {ratio:.2} times the bound of {bound:.2e}"
                ));
            }
            self.seen.push(ratio);
            if ratio > self.worst {
                (self.worst, self.worst_at) = (ratio, format!("{name}[{at}]"));
            }
        }
        Ok(())
    }

    /// The distribution of all ratios so far.
    ///
    /// # Errors
    /// Nothing was compared.
    pub fn distribution(mut self) -> Result<Distribution, String> {
        if self.seen.is_empty() {
            return Err("nothing was compared".to_owned());
        }
        let middle = self.seen.len() / 2;
        let (_, &mut median, _) = self.seen.select_nth_unstable_by(middle, f64::total_cmp);
        Ok(Distribution { elements: self.seen.len(), median, worst: self.worst, worst_at: self.worst_at })
    }
}
