//! The choices of a plan.

#[cfg(feature = "tuner")]
use super::LinearWay;
use super::{FusedChoice, LinearChoice, OuterChoice};
use crate::error::Error;

/// The choices of a plan. They change the order of sums, and nothing else about the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Choice {
    /// For `forward` and `backward_input`.
    Fused(FusedChoice),
    /// For `backward_params`.
    Outer(OuterChoice),
    /// For `linear`.
    Linear(LinearChoice),
    /// Of operations with one plan.
    Only,
}

impl Choice {
    pub(crate) fn fused(self, operation: &'static str) -> Result<FusedChoice, Error> {
        if let Self::Fused(choice) = self { Ok(choice) } else { Err(Error::WrongChoice { operation }) }
    }

    pub(crate) fn outer(self) -> Result<OuterChoice, Error> {
        let operation = "backward_params";
        if let Self::Outer(choice) = self { Ok(choice) } else { Err(Error::WrongChoice { operation }) }
    }

    pub(crate) fn linear(self) -> Result<LinearChoice, Error> {
        let operation = "linear";
        if let Self::Linear(choice) = self { Ok(choice) } else { Err(Error::WrongChoice { operation }) }
    }

    pub(crate) fn only(self, operation: &'static str) -> Result<(), Error> {
        if let Self::Only = self { Ok(()) } else { Err(Error::WrongChoice { operation }) }
    }

    /// The two choices that the cost model predicts less well than sizes: broadcast or read coefficients, and
    /// separate dispatches, or tiles.
    #[cfg(feature = "tuner")]
    pub(crate) fn kind(&self) -> [bool; 2] {
        match *self {
            Self::Fused(FusedChoice { broadcast, shrink_splits, .. }) => [broadcast, shrink_splits > 0],
            Self::Outer(OuterChoice { broadcast, separate, .. }) => [broadcast, separate],
            Self::Linear(LinearChoice { way: LinearWay::Tiled { .. }, .. }) => [false, true],
            Self::Linear(LinearChoice { way: LinearWay::Matrices { .. }, .. }) => [true, true],
            Self::Linear(LinearChoice { way: LinearWay::Direct { broadcast, .. }, .. }) => [broadcast, false],
            Self::Only => [false; 2],
        }
    }
}
