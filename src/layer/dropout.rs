//! Dropout of the adapter.

use super::hyper::check_number;
use crate::error::Error;

/// Dropout in training: in forward that saves its state, and in backward. A forward that saves nothing is inference, and
/// drops nothing.
///
/// Which elements are dropped follows from the batch's seed and step ([`Batch::set_random`](crate::Batch::set_random)),
/// `stream`, the token's place in the batch and the element's in its row, by Philox 4x32-10: the same on every device,
/// with every plan, in forward and in backward. Nothing is stored. What is kept is divided by the probability of that.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Dropout {
    /// The probability with which an element is dropped, in `0..1`; used as the nearest multiple of 1/65536
    /// below 1: less than half of one drops nothing.
    pub probability: f32,
    /// What is dropped.
    pub of: DropoutOf,
    /// Distinguishes layers: those with different streams drop different elements. Each stream takes uniforms of its own.
    pub stream: u32,
}

/// What dropout drops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum DropoutOf {
    /// Elements of x, as A reads it: `LoRA`'s dropout. The input router reads all of x; the latent router reads h, which
    /// has what A reads.
    #[default]
    Input,
    /// Elements of h, for each expert others: R-LoRA's. The router reads all of h.
    Latent,
}

impl Dropout {
    /// Dropout of x with this probability.
    #[must_use]
    pub const fn new(probability: f32) -> Self {
        Self { probability, of: DropoutOf::Input, stream: 0 }
    }

    /// 65536 times the probability.
    pub(crate) fn threshold(&self) -> u32 {
        ((self.probability * 65536.0).round() as u32).min(65535)
    }

    /// The factor of what is kept.
    pub(crate) fn keep_scale(&self) -> f32 {
        (65536.0 / f64::from(65536 - self.threshold())) as f32
    }

    pub(crate) fn key(&self) -> [u32; 3] {
        [self.probability.to_bits(), self.of as u32, self.stream]
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let valid = (0.0..1.0).contains(&self.probability);
        check_number("the probability of dropout", self.probability, valid, "at least 0 and below 1")
    }
}
