//! What was measured to be best on a device, for the planner to prefer to what it predicts.

use std::collections::BTreeMap;

use crate::config::{Config, Router};
use crate::element::Element;
use crate::error::Error;
use crate::op::{
    BackwardInputOptions, BackwardInputPlan, BackwardParamsOptions, BackwardParamsPlan, ForwardOptions,
    ForwardPlan,
};
use crate::plan::{DeviceProfile, FusedChoice, OuterChoice};
use crate::shader::WriteMode;

/// An operation that has something to choose about, and its options.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "tuner", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "one variant per kernel, named after it")]
pub enum Operation {
    Forward(ForwardOptions),
    BackwardInput(BackwardInputOptions),
    BackwardParams(BackwardParamsOptions),
}

impl Operation {
    /// Its kernel's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Forward(_) => "forward",
            Self::BackwardInput(_) => "backward_input",
            Self::BackwardParams(_) => "backward_params",
        }
    }

    /// Forward and both backward operations of a training step, as the crate's front page has it: y and dx
    /// are added to what the frozen layer made of them, and gradients are overwritten. Activations are of one
    /// type, parameters and gradients in f32.
    ///
    /// [`Tuner::measure_step`](crate::tuner::Tuner::measure_step) measures these operations. A step that
    /// writes otherwise has operations of its own, to be measured and counted one by one.
    #[must_use]
    pub fn training_step(activations: Element) -> [Self; 3] {
        let (x, y, g) = (activations, activations, activations);
        let (add, overwrite) = (WriteMode::Accumulate, WriteMode::Overwrite);
        [
            Self::Forward(ForwardOptions { write: add, save: true, x, parameters: Element::F32, y }),
            Self::BackwardInput(BackwardInputOptions { g, dx: Some((x, add)) }),
            Self::BackwardParams(BackwardParamsOptions { write: overwrite, x, g }),
        ]
    }

    /// Every choice that fits the device's limits, what is predicted to be best first. A driver's bound on loop
    /// iterations may still refuse one; [`Operation::choice`] tells.
    ///
    /// # Errors
    /// No choice fits the device's limits.
    pub fn choices(
        &self,
        config: &Config,
        tokens: u32,
        device: &DeviceProfile,
    ) -> Result<Vec<Choice>, Error> {
        let fused = |choices: Vec<FusedChoice>| choices.into_iter().map(Choice::Fused).collect();
        let outer = |choices: Vec<OuterChoice>| choices.into_iter().map(Choice::Outer).collect();
        match self {
            Self::Forward(_) => ForwardPlan::choices(config, tokens, device).map(fused),
            Self::BackwardInput(options) => {
                BackwardInputPlan::choices(config, tokens, *options, device).map(fused)
            }
            Self::BackwardParams(_) => BackwardParamsPlan::choices(config, tokens, device).map(outer),
        }
    }

    /// The choice for the device: what its tuning prefers, if that fits, or else what is predicted to be
    /// best.
    ///
    /// # Errors
    /// The operation does not fit the device.
    pub fn choice(&self, config: &Config, tokens: u32, device: &DeviceProfile) -> Result<Choice, Error> {
        match self {
            Self::Forward(options) => {
                ForwardPlan::new(config, tokens, options, device).map(|plan| Choice::Fused(plan.choice))
            }
            Self::BackwardInput(options) => {
                BackwardInputPlan::new(config, tokens, options, device).map(|plan| Choice::Fused(plan.choice))
            }
            Self::BackwardParams(options) => BackwardParamsPlan::new(config, tokens, options, device)
                .map(|plan| Choice::Outer(plan.choice)),
        }
    }

    /// The elements of x, parameters, y, g and dx; f32 where the operation has no such tensor.
    #[cfg(feature = "tuner")]
    pub(crate) fn elements(self) -> [Element; 5] {
        let f32 = Element::F32;
        match self {
            Self::Forward(ForwardOptions { x, parameters, y, .. }) => [x, parameters, y, f32, f32],
            Self::BackwardInput(BackwardInputOptions { g, dx }) => {
                [f32, f32, f32, g, dx.map_or(f32, |(element, _)| element)]
            }
            Self::BackwardParams(BackwardParamsOptions { x, g, .. }) => [x, f32, f32, g, f32],
        }
    }
}

/// What can be chosen about an operation without changing what it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "tuner", derive(serde::Serialize, serde::Deserialize))]
pub enum Choice {
    /// Of forward and of `backward_input`.
    Fused(FusedChoice),
    /// Of `backward_params`.
    Outer(OuterChoice),
}

#[cfg(feature = "tuner")]
impl Choice {
    /// What costs predict less well than sizes: how lanes get coefficients, and whether there are dispatches
    /// apart.
    pub(crate) fn kind(&self) -> [bool; 2] {
        match *self {
            Self::Fused(FusedChoice { held, shrink_splits, .. }) => [held, shrink_splits > 0],
            Self::Outer(OuterChoice { held, apart, .. }) => [held, apart],
        }
    }
}

/// What a choice was measured for: an operation, a layer without its scaling, and a number of tokens
/// up to the next power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "tuner", derive(serde::Serialize, serde::Deserialize))]
struct Key {
    operation: Operation,
    d_in: u32,
    d_out: u32,
    rank: u32,
    experts: u32,
    router: Router,
    tokens: u32,
}

impl Key {
    fn new(config: &Config, tokens: u32, operation: Operation) -> Self {
        let Config { d_in, d_out, rank, experts, router, scaling: _ } = *config;
        // One expert has no router, whatever its configuration says.
        let router = if experts == 1 { Router::Input } else { router };
        let tokens = tokens.checked_next_power_of_two().unwrap_or(u32::MAX);
        Self { operation, d_in, d_out, rank, experts, router, tokens }
    }
}

/// A table of choices. Empty by default; [`Tuner`](crate::tuner::Tuner) measures, saves and loads them.
///
/// A choice that does not fit a device is not used, and none can ask for more scratch memory than the planner
/// itself may take. What a table can do is make operations slow, and change the order of their sums.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "tuner", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "tuner", serde(from = "Vec<(Key, Choice)>", into = "Vec<(Key, Choice)>"))]
pub struct Tuning(BTreeMap<Key, Choice>);

#[cfg(feature = "tuner")]
impl From<Vec<(Key, Choice)>> for Tuning {
    fn from(entries: Vec<(Key, Choice)>) -> Self {
        Self(entries.into_iter().collect())
    }
}

#[cfg(feature = "tuner")]
impl From<Tuning> for Vec<(Key, Choice)> {
    fn from(tuning: Tuning) -> Self {
        tuning.0.into_iter().collect()
    }
}

impl Tuning {
    /// Prefers `choice` for this layer and up to the next power of two of `tokens`.
    pub fn set(&mut self, config: &Config, tokens: u32, operation: Operation, choice: Choice) {
        self.0.insert(Key::new(config, tokens, operation), choice);
    }

    /// What is preferred, if anything is.
    #[must_use]
    pub fn get(&self, config: &Config, tokens: u32, operation: Operation) -> Option<Choice> {
        self.0.get(&Key::new(config, tokens, operation)).copied()
    }

    /// Number of choices.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is preferred.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn fused(&self, config: &Config, tokens: u32, operation: Operation) -> Option<FusedChoice> {
        match self.get(config, tokens, operation)? {
            Choice::Fused(choice) => Some(choice),
            Choice::Outer(_) => None,
        }
    }

    pub(crate) fn outer(&self, config: &Config, tokens: u32, operation: Operation) -> Option<OuterChoice> {
        match self.get(config, tokens, operation)? {
            Choice::Outer(choice) => Some(choice),
            Choice::Fused(_) => None,
        }
    }
}
