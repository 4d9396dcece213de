//! Fresh adapters, as the reference code initialises them.

use crate::config::{Config, Gate, Router};
use crate::error::Error;
use crate::layout::Adapter;

impl Adapter {
    /// A fresh adapter: A and `W_g` Kaiming-uniform with a = sqrt(5), that is uniform in
    /// +-1/sqrt(fan in); every `B_i` zero, so that the layer starts as the frozen one.
    ///
    /// The same seed gives the same adapter on every machine.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn initialise(config: &Config, seed: u64) -> Result<Self, Error> {
        config.layout()?;
        let [d_in, d_out, rank, experts] =
            [config.d_in, config.d_out, config.rank, config.experts].map(|n| n as usize);
        let [router_rows, router_columns] = match config.gate() {
            Gate::One => [0, 1],
            Gate::Router(Router::Input) => [experts, d_in],
            Gate::Router(Router::Latent) => [experts, rank],
        };
        let mut random = SplitMix64(seed);
        Ok(Self {
            a: random.kaiming_uniform(rank, d_in),
            router: random.kaiming_uniform(router_rows, router_columns),
            b: vec![vec![0.0; d_out * rank]; experts],
        })
    }
}

/// Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014.
pub(crate) struct SplitMix64(pub(crate) u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform in -1..1, exact in f32: 24 bits.
    pub(crate) fn uniform(&mut self) -> f32 {
        let unit = (self.next() >> 40) as f32 / (1u32 << 24) as f32;
        2.0 * unit - 1.0
    }

    /// A rows x `fan_in` matrix, uniform in +-1/sqrt(`fan_in`).
    fn kaiming_uniform(&mut self, rows: usize, fan_in: usize) -> Vec<f32> {
        let bound = (fan_in as f32).sqrt().recip();
        (0..rows * fan_in).map(|_| self.uniform() * bound).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fresh_adapters_are_uniform_and_repeat() {
        let config = Config { d_in: 40, d_out: 36, rank: 8, experts: 3, scaling: 1.0, router: Router::Input };
        let adapter = Adapter::initialise(&config, 7).expect("a valid configuration");
        assert_eq!(Ok(&adapter), Adapter::initialise(&config, 7).as_ref());
        assert_ne!(Ok(&adapter), Adapter::initialise(&config, 8).as_ref());
        let bound = 1.0 / 40.0f32.sqrt();
        for (name, matrix) in [("A", &adapter.a), ("W_g", &adapter.router)] {
            let len = matrix.len() as f32;
            let mean = matrix.iter().sum::<f32>() / len;
            let deviation = (matrix.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / len).sqrt();
            assert!(matrix.iter().all(|v| v.abs() <= bound), "{name} exceeds 1 / sqrt(fan in)");
            assert!(mean.abs() < 0.2 * bound, "{name}'s mean is {mean}");
            assert!(
                (deviation - bound / 3.0f32.sqrt()).abs() < 0.1 * bound,
                "{name} deviates by {deviation}"
            );
        }
        assert!(adapter.b.iter().flatten().all(|&b| b == 0.0));
    }
}
