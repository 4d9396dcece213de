//! An adapter's matrices, and their initialisation as in the reference code.

use super::config::Config;
use super::hyper::check_number;
use super::random::SplitMix64;
use crate::error::Error;

/// An adapter's matrices in their natural shapes, row-major, as checkpoints store them. They hold parameters
/// or gradients, as f32 or as the twin's numbers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Adapter<T = f32> {
    /// A: rank x `d_in`; or all `A_i`, one below the other, where each expert has one: (experts * rank) x `d_in`.
    pub a: Vec<T>,
    /// `W_g`: experts x `d_in` (input router) or experts x rank (latent router); empty without a router.
    pub router: Vec<T>,
    /// The router's bias, one number per expert; empty without one.
    pub router_bias: Vec<T>,
    /// `B_i`, one per expert: `d_out` x rank.
    pub b: Vec<Vec<T>>,
}

impl Adapter {
    /// A fresh adapter. A and `W_g` are Kaiming-uniform with a = sqrt(5), that is uniform in
    /// +-1/sqrt(fan in). A router's bias is zero, and so is every `B_i`, so that the layer starts out equal to the
    /// frozen one.
    ///
    /// The same seed gives the same adapter on every machine.
    ///
    /// # Errors
    /// An invalid configuration.
    pub fn initialise(config: &Config, seed: u64) -> Result<Self, Error> {
        config.layout()?;
        let [d_in, d_out, rank, experts] =
            [config.d_in, config.d_out, config.rank, config.experts].map(|n| n as usize);
        let gate = config.gate();
        let router_columns = gate.router_columns(config) as usize;
        let router_rows = if router_columns > 0 { experts } else { 0 };
        let mut random = SplitMix64(seed);
        Ok(Self {
            a: random.kaiming_uniform(config.a_rows() as usize, d_in),
            router: random.kaiming_uniform(router_rows, router_columns.max(1)),
            router_bias: if gate.has_bias() { vec![0.0; experts] } else { Vec::new() },
            b: vec![vec![0.0; d_out * rank]; experts],
        })
    }

    /// A fresh adapter whose `B_i` are uniform in `+-scale / sqrt(rank)`, each anew: the random heads of R-LoRA (Liu et
    /// al. 2025), from which experts part sooner. The layer then does not start out equal to the frozen one; a small
    /// scale keeps it near.
    ///
    /// # Errors
    /// An invalid configuration, or a scale that is not finite.
    pub fn initialise_random_heads(config: &Config, seed: u64, scale: f32) -> Result<Self, Error> {
        check_number("scale", scale, scale.is_finite(), "finite")?;
        let fresh = Self::initialise(config, seed)?;
        let (d_out, rank) = (config.d_out as usize, config.rank as usize);
        // Another sequence than that of A and the router.
        let mut random = SplitMix64(!seed);
        let head = |_| random.kaiming_uniform(d_out, rank).into_iter().map(|number| scale * number).collect();
        Ok(Self { b: (0..config.experts).map(head).collect(), ..fresh })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Router;

    #[test]
    fn fresh_adapters_are_uniform_and_repeat() {
        let config = Config {
            d_in: 40,
            d_out: 36,
            rank: 8,
            experts: 3,
            scaling: 1.0,
            router: Router::Input,
            ..Default::default()
        };
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

    #[test]
    fn random_heads_differ_and_repeat() {
        let config = Config { d_in: 40, d_out: 36, rank: 4, experts: 3, ..Config::DEFAULT };
        let adapter = Adapter::initialise_random_heads(&config, 7, 0.1).expect("a valid configuration");
        assert_eq!(Ok(&adapter), Adapter::initialise_random_heads(&config, 7, 0.1).as_ref());
        let fresh = Adapter::initialise(&config, 7).expect("a valid configuration");
        assert_eq!((&adapter.a, &adapter.router), (&fresh.a, &fresh.router));
        for (i, b) in adapter.b.iter().enumerate() {
            assert!(b.iter().all(|b| b.abs() <= 0.05) && b.iter().any(|b| b.abs() > 0.04));
            assert!(adapter.b[..i].iter().all(|other| other != b), "heads are the same");
        }
        assert!(Adapter::initialise_random_heads(&config, 7, f32::NAN).is_err());
    }
}
