//! From an operation, a layer and a number of tokens to a recording. Pure: no device is needed.

mod adamw;
mod backward_input;
mod backward_params;
mod forward;
mod fused;
mod linear;
mod work;

pub(crate) use adamw::Hyper;

use crate::error::{Error, Limit};
use crate::layer::{Config, Operation};
use crate::plan::{Capacity, Choice, DeviceProfile, Plans, Tuning};
use crate::recording::{Recording, Work};

/// Plans operations for one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Planner {
    /// What the device is.
    pub profile: DeviceProfile,
    /// What was measured to be best on it, if anything was: preferred to what is predicted.
    pub tuning: Tuning,
}

/// An operation on a layer, for up to a number of tokens.
trait Problem {
    /// Every choice that fits the device's limits, at least one; what should be best comes first.
    fn choices(&self, device: &DeviceProfile) -> Result<Vec<Choice>, Error>;

    /// Proportional to the loop iterations of a thread, roughly.
    fn rounds(&self, choice: Choice, device: &DeviceProfile) -> u64;

    /// Records the operation as chosen, if that is a possible choice and fits the device.
    fn record(&self, choice: Choice, device: &DeviceProfile) -> Result<Recording, Error>;
}

fn problem(operation: &Operation, config: &Config, tokens: u32) -> Result<Box<dyn Problem>, Error> {
    Ok(match operation {
        Operation::Forward(options) => Box::new(forward::Forward::new(config, tokens, *options)?),
        Operation::BackwardInput(options) => {
            Box::new(backward_input::BackwardInput::new(config, tokens, *options)?)
        }
        Operation::BackwardParams(options) => {
            Box::new(backward_params::BackwardParams::new(config, tokens, *options)?)
        }
        Operation::Linear(options) => Box::new(linear::Linear::new(config, tokens, *options)?),
    })
}

/// Each number of tokens for which there is a plan of its own is this many times the one before.
const PLAN_STEP: u32 = 8;

/// Where sums have one order in all batches, it is the one that is best for this many tokens.
const INVARIANT_TOKENS: u32 = 32;

/// Choices that are tried where the driver's bound on loop iterations refuses the best.
const MOST_TRIES: usize = 4;

impl Planner {
    /// A planner for a device that nothing was measured on.
    #[must_use]
    pub fn new(profile: DeviceProfile) -> Self {
        Self { profile, tuning: Tuning::default() }
    }

    /// Records an operation for up to `tokens` tokens: as was measured to be best, if that fits, or else as is
    /// predicted to be best.
    ///
    /// # Errors
    /// A zero dimension, half-precision rows that are no multiple of four, or a shape that does not
    /// fit the device's limits.
    pub fn plan(&self, operation: &Operation, config: &Config, tokens: u32) -> Result<Recording, Error> {
        let device = &self.profile;
        let problem = problem(operation, config, tokens)?;
        let tuned = self.tuning.get(config, tokens, *operation);
        if let Some(Ok(recording)) = tuned.map(|choice| problem.record(choice, device)) {
            return Ok(recording);
        }
        first_that_runs(&*problem, &problem.choices(device)?, device)
    }

    /// Records an operation for batches of up to a capacity: a recording for each number of tokens that has a
    /// plan of its own, the least first.
    ///
    /// # Errors
    /// Those of [`Planner::plan`].
    pub fn plan_all(
        &self,
        operation: &Operation,
        config: &Config,
        capacity: impl Into<Capacity>,
    ) -> Result<Vec<Recording>, Error> {
        let Capacity { tokens, plans } = capacity.into();
        match plans {
            Plans::One => Ok(vec![self.plan(operation, config, tokens)?]),
            Plans::Invariant => Ok(vec![self.plan_invariant(operation, config, tokens)?]),
            Plans::Several => {
                let all = self.plan(operation, config, tokens)?;
                let fewer = std::iter::successors(Some(1u32), |count| count.checked_mul(PLAN_STEP));
                let mut recordings: Vec<Recording> = Vec::new();
                for count in fewer.take_while(|&count| count < tokens) {
                    let recording = self.plan(operation, config, count)?;
                    recordings.pop_if(|fewer| fewer.steps == recording.steps);
                    recordings.push(recording);
                }
                recordings.pop_if(|fewer| fewer.steps == all.steps);
                recordings.push(all);
                Ok(recordings)
            }
        }
    }

    /// Records an operation for up to `tokens` tokens with sums in an order that does not depend on how many: as
    /// is best for some other number, and without a shrink of its own, whose splits might not fit many.
    fn plan_invariant(
        &self,
        operation: &Operation,
        config: &Config,
        tokens: u32,
    ) -> Result<Recording, Error> {
        Error::check_dimension("tokens", tokens)?;
        let device = &self.profile;
        let mut choices = problem(operation, config, INVARIANT_TOKENS)?.choices(device)?;
        choices.retain(|choice| !matches!(choice, Choice::Fused(fused) if fused.shrink_splits > 0));
        let problem = problem(operation, config, tokens.max(INVARIANT_TOKENS))?;
        let recording = first_that_runs(&*problem, &choices, device)?;
        Ok(recording.with_capacity(tokens))
    }

    /// Records an operation as `choice` says.
    ///
    /// # Errors
    /// Those of [`Planner::plan`]; also a choice that the operation does not have, or that does not fit the
    /// device.
    pub fn plan_as(
        &self,
        choice: Choice,
        operation: &Operation,
        config: &Config,
        tokens: u32,
    ) -> Result<Recording, Error> {
        problem(operation, config, tokens)?.record(choice, &self.profile)
    }

    /// Every choice that fits the device's limits, what is predicted to be best first. A driver's bound on loop
    /// iterations may still refuse one: [`Planner::plan_as`] tells.
    ///
    /// # Errors
    /// Those of [`Planner::plan`].
    pub fn choices(&self, operation: &Operation, config: &Config, tokens: u32) -> Result<Vec<Choice>, Error> {
        problem(operation, config, tokens)?.choices(&self.profile)
    }

    /// Every recording that fits the device, in the order of [`Planner::choices`]; they compute the same.
    ///
    /// # Errors
    /// Those of [`Planner::plan`].
    pub fn candidates(
        &self,
        operation: &Operation,
        config: &Config,
        tokens: u32,
    ) -> Result<Vec<Recording>, Error> {
        let device = &self.profile;
        let problem = problem(operation, config, tokens)?;
        let choices = problem.choices(device)?;
        // Refused at once where no choice runs.
        first_that_runs(&*problem, &choices, device)?;
        let too_long = |recording: &Result<Recording, Error>| {
            matches!(recording, Err(Error::OverLimit { limit: Limit::LoopIterations, .. }))
        };
        let recordings = choices.into_iter().map(|choice| problem.record(choice, device));
        recordings.filter(|recording| !too_long(recording)).collect()
    }
}

impl Operation {
    /// The least that the operation has to do: every tensor once, and no padding.
    ///
    /// # Errors
    /// A zero dimension or a configuration that no buffer holds.
    pub fn least_work(&self, config: &Config, tokens: u32) -> Result<Work, Error> {
        match self {
            Self::Forward(options) => forward::least_work(config, tokens, options),
            Self::BackwardInput(options) => backward_input::least_work(config, tokens, options),
            Self::BackwardParams(options) => backward_params::least_work(config, tokens, options),
            Self::Linear(options) => linear::least_work(config, tokens, options),
        }
    }
}

/// Records the first of `choices` (best first, at least one) whose loops the driver lets run.
fn first_that_runs(
    problem: &dyn Problem,
    choices: &[Choice],
    device: &DeviceProfile,
) -> Result<Recording, Error> {
    let Some((&best, others)) = choices.split_first() else {
        return Err(Error::WrongChoice { operation: "an operation without choices" });
    };
    let recorded = problem.record(best, device);
    let Err(Error::OverLimit { limit: Limit::LoopIterations, needed, allowed, .. }) = recorded else {
        return recorded;
    };
    let rounds = |choice: Choice| u128::from(problem.rounds(choice, device));
    let enough = rounds(best) * u128::from(allowed);
    let few = |choice: &&Choice| rounds(**choice) * u128::from(needed) <= enough;
    let mut least: Vec<&Choice> = others.iter().collect();
    least.sort_by_cached_key(|choice| rounds(**choice));
    let tried = others.iter().filter(few).take(MOST_TRIES).chain(least.into_iter().take(MOST_TRIES));
    tried.map(|&choice| problem.record(choice, device)).find(Result::is_ok).unwrap_or(recorded)
}

#[cfg(test)]
mod tests;
