//! From an operation, a layer and a number of tokens to a recording. Pure: no device is needed.

mod adamw;
mod backward_input;
mod backward_params;
mod describe;
mod forward;
mod fused;
mod gate_gradients;
mod gate_losses;
mod linear;
mod work;

pub(crate) use adamw::{Hyper, group_words};

use std::time::Duration;

use crate::error::{Error, Limit};
use crate::layer::{Config, Operation};
use crate::plan::{Capacity, Choice, DeviceProfile, LinearWay, Plans, Tuning};
use crate::recording::{Recording, Work};

/// Plans operations for one device.
#[derive(Debug, Clone, PartialEq)]
pub struct Planner {
    /// The properties of the device.
    pub profile: DeviceProfile,
    /// The choices that were measured to be best on it, if any. They are preferred to predictions.
    pub tuning: Tuning,
}

/// An operation on a layer, for up to a number of tokens.
trait Problem {
    /// The candidates that fit the device's limits: at least one, the best predicted one first.
    fn choices(&self, device: &DeviceProfile) -> Result<Vec<Choice>, Error>;

    /// Roughly proportional to the loop iterations of a thread.
    fn rounds(&self, choice: Choice, device: &DeviceProfile) -> u64;

    /// The predicted seconds of a choice on a GPU, if the choice is possible and fits the device.
    fn seconds(&self, choice: Choice, device: &DeviceProfile) -> Result<f64, Error>;

    /// Records the operation by a choice, if the choice is possible and fits the device.
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
        Operation::GateGradients(options) => {
            Box::new(gate_gradients::GateGradients::new(config, tokens, *options)?)
        }
        Operation::GateLosses(options) => Box::new(gate_losses::GateLosses::new(config, tokens, *options)?),
    })
}

/// If sums have the same order in all batches, it is the best order for this many tokens.
const INVARIANT_TOKENS: u32 = 32;

/// If the driver's bound on loop iterations refuses the best choice, this many are tried of those that should
/// stay below it, and then as many of those with the fewest iterations.
const MOST_TRIES: usize = 4;

impl Planner {
    /// A planner for a device without measurements.
    #[must_use]
    pub fn new(profile: DeviceProfile) -> Self {
        Self { profile, tuning: Tuning::default() }
    }

    /// Records an operation for up to `tokens` tokens. The choice is the one that was measured to be best, if
    /// it fits, or else the one that is predicted to be best.
    ///
    /// # Errors
    /// A zero dimension, a scaling that is not finite, half-precision rows that are not a multiple of four
    /// elements, a stride that is shorter than a row or not a multiple of four, a bias for the gradient of a
    /// frozen layer's input, or a shape that does not fit the device's limits.
    pub fn plan(&self, operation: &Operation, config: &Config, tokens: u32) -> Result<Recording, Error> {
        let device = &self.profile;
        let problem = problem(operation, config, tokens)?;
        let tuned = self.tuning.get(config, tokens, *operation);
        if let Some(Ok(recording)) = tuned.map(|choice| problem.record(choice, device)) {
            return Ok(recording);
        }
        first_that_runs(&*problem, &problem.choices(device)?, device)
    }

    /// Records an operation for batches of up to `capacity` tokens: one recording for each separate plan, the
    /// smallest number of tokens first.
    ///
    /// # Errors
    /// Those of [`Planner::plan`].
    pub fn plan_all(
        &self,
        operation: &Operation,
        config: &Config,
        capacity: impl Into<Capacity>,
    ) -> Result<Vec<Recording>, Error> {
        let capacity = capacity.into();
        if capacity.plans == Plans::Invariant {
            return Ok(vec![self.plan_invariant(operation, config, capacity.tokens)?]);
        }
        // An operation that does not fit at all is refused first.
        let all = self.plan(operation, config, capacity.tokens)?;
        let mut recordings: Vec<Recording> = Vec::new();
        for count in capacity.counts().filter(|&count| count < capacity.tokens) {
            let recording = self.plan(operation, config, count)?;
            recordings.pop_if(|fewer| fewer.steps == recording.steps);
            recordings.push(recording);
        }
        recordings.pop_if(|fewer| fewer.steps == all.steps);
        recordings.push(all);
        Ok(recordings)
    }

    /// Records an operation for up to `tokens` tokens, with an order of sums that does not depend on their
    /// number. The choice is the best for [`INVARIANT_TOKENS`] tokens without partial sums in scratch memory,
    /// which might not fit many tokens.
    fn plan_invariant(
        &self,
        operation: &Operation,
        config: &Config,
        tokens: u32,
    ) -> Result<Recording, Error> {
        Error::check_dimension("tokens", tokens)?;
        let device = &self.profile;
        let mut choices = problem(operation, config, INVARIANT_TOKENS)?.choices(device)?;
        choices.retain(|choice| match choice {
            Choice::Fused(choice) => choice.shrink_splits == 0,
            // Matrices take a least number of tokens.
            Choice::Linear(choice) => choice.splits == 1 && !matches!(choice.way, LinearWay::Matrices { .. }),
            Choice::Outer(_) | Choice::Only => true,
        });
        let of_many = problem(operation, config, tokens.max(INVARIANT_TOKENS))?;
        let recording = first_that_runs(&*of_many, &choices, device)?;
        if tokens >= INVARIANT_TOKENS {
            return Ok(recording);
        }
        // Fewer tokens have fewer rows, whatever the plan.
        let of_few = problem(operation, config, tokens)?;
        let Recording { tensors, .. } = first_that_runs(&*of_few, &of_few.choices(device)?, device)?;
        Ok(Recording { capacity: tokens, tensors, ..recording })
    }

    /// Records an operation by `choice`.
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

    /// The time that an operation planned by `choice` is predicted to take, if the device is a GPU. Predictions
    /// rank plans; what a device takes may be twice or half of one.
    ///
    /// # Errors
    /// Those of [`Planner::plan_as`].
    pub fn predict(
        &self,
        choice: Choice,
        operation: &Operation,
        config: &Config,
        tokens: u32,
    ) -> Result<Option<Duration>, Error> {
        if self.profile.software {
            return Ok(None);
        }
        let seconds = problem(operation, config, tokens)?.seconds(choice, &self.profile)?;
        Ok(Duration::try_from_secs_f64(seconds).ok())
    }

    /// All candidate choices that fit the device's limits, the best predicted one first. A driver's bound on
    /// loop iterations may still refuse one: then [`Planner::plan_as`] fails.
    ///
    /// # Errors
    /// Those of [`Planner::plan`].
    pub fn choices(&self, operation: &Operation, config: &Config, tokens: u32) -> Result<Vec<Choice>, Error> {
        problem(operation, config, tokens)?.choices(&self.profile)
    }

    /// The recordings of all candidate choices that fit the device, in the order of [`Planner::choices`].
    /// They compute the same, but may add in different orders.
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
        // Fails early if no choice runs.
        first_that_runs(&*problem, &choices, device)?;
        let too_long = |recording: &Result<Recording, Error>| {
            matches!(recording, Err(Error::OverLimit { limit: Limit::LoopIterations, .. }))
        };
        let recordings = choices.into_iter().map(|choice| problem.record(choice, device));
        recordings.filter(|recording| !too_long(recording)).collect()
    }
}

impl Operation {
    /// The least work of the operation: it reads and writes each tensor once, and does nothing for the
    /// padding of tiles.
    ///
    /// # Errors
    /// A zero dimension, a scaling that is not finite, or a configuration that no buffer holds.
    pub fn least_work(&self, config: &Config, tokens: u32) -> Result<Work, Error> {
        match self {
            Self::Forward(options) => forward::least_work(config, tokens, options),
            Self::BackwardInput(options) => backward_input::least_work(config, tokens, options),
            Self::BackwardParams(options) => backward_params::least_work(config, tokens, options),
            Self::Linear(options) => linear::least_work(config, tokens, options),
            Self::GateGradients(options) => gate_gradients::least_work(config, tokens, options),
            Self::GateLosses(options) => gate_losses::least_work(config, tokens, options),
        }
    }
}

/// Records the first of `choices` (at least one, the best first) whose loops stay below the driver's bound.
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
