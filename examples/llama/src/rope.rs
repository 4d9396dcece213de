//! Rotary positions: by which angle each pair of a head turns from one place to the next.

use std::f64::consts::TAU;

/// The angles of the pairs of a head without scaling.
pub fn rates(base: f64, head_width: u32) -> Vec<f64> {
    (0..head_width / 2).map(|pair| base.powf(-2.0 * f64::from(pair) / f64::from(head_width))).collect()
}

/// `LLaMA` 3.1's scaling, for contexts longer than the one that the model was first trained with.
#[derive(Debug, Clone, Copy)]
pub struct Llama3 {
    pub factor: f64,
    /// Pairs that turn fewer times than this within the first context are slowed by the factor.
    pub low: f64,
    /// Pairs that turn more often than this are as they were, and those between are slowed by less.
    pub high: f64,
    /// The tokens of the first context.
    pub context: f64,
}

impl Llama3 {
    /// How fast a pair turns.
    pub fn scale(&self, rate: f64) -> f64 {
        let turns = self.context * rate / TAU;
        let share = ((turns - self.low) / (self.high - self.low)).clamp(0.0, 1.0);
        rate * (share + (1.0 - share) / self.factor)
    }
}

/// The cosine and the sine of every pair of a head at every place.
pub fn turns(rates: &[f64], context: u32) -> Vec<f32> {
    let turn = |angle: f64| [angle.cos() as f32, angle.sin() as f32];
    (0..context).flat_map(|place| rates.iter().flat_map(move |rate| turn(f64::from(place) * rate))).collect()
}
