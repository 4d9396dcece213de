//! Plans in words.

use std::fmt::Write as _;

use super::Planner;
use crate::error::Error;
use crate::layer::{Config, Operation};
use crate::plan::{Capacity, Choice, Plans};

impl Planner {
    /// What would run, and why: the layer's variant and the operation's options, then for each plan the tokens that it is for, its dispatches, its
    /// choices, and whether these were measured or predicted. For logs and reports.
    ///
    /// ```
    /// use hydralora::{Config, DeviceProfile, ForwardOptions, Operation, Planner, wgpu};
    ///
    /// let planner = Planner::new(DeviceProfile::new(wgpu::Limits::default(), 256));
    /// let config = Config { d_in: 4096, d_out: 4096, rank: 8, experts: 4, ..Config::default() };
    /// let forward = Operation::Forward(ForwardOptions::default());
    /// println!("{}", planner.describe(&forward, &config, 512)?);
    /// # Ok::<(), hydralora::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Planner::plan_all`].
    pub fn describe(
        &self,
        operation: &Operation,
        config: &Config,
        capacity: impl Into<Capacity>,
    ) -> Result<String, Error> {
        let capacity = capacity.into();
        let recordings = self.plan_all(operation, config, capacity)?;
        let mut text = operation.in_words(config);
        for recording in recordings {
            let tokens = recording.capacity;
            let kernels: Vec<&str> = recording.steps.iter().map(|step| step.shader.source().label).collect();
            // Writing into a string cannot fail.
            let _ = write!(text, "\nup to {tokens} tokens: {}", kernels.join(", "));
            let Some(choice) = recording.choice.filter(|&choice| choice != Choice::Only) else { continue };
            let reason = self.reason(choice, operation, config, capacity.plans, tokens)?;
            let _ = write!(text, "\n  {choice:?}\n  {reason}");
        }
        Ok(text)
    }

    /// Why a choice was made.
    fn reason(
        &self,
        choice: Choice,
        operation: &Operation,
        config: &Config,
        plans: Plans,
        tokens: u32,
    ) -> Result<String, Error> {
        if plans == Plans::Invariant {
            return Ok(
                "the predicted best of those whose sums have one order for any number of tokens".to_owned()
            );
        }
        if self.tuning.get(config, tokens, *operation) == Some(choice) {
            return Ok("measured to be best on this device".to_owned());
        }
        let candidates = self.choices(operation, config, tokens)?.len();
        let predicted = self.predict(choice, operation, config, tokens)?;
        Ok(match predicted {
            Some(time) => {
                format!("predicted to be best of {candidates}, at {:.1} us", time.as_secs_f64() * 1e6)
            }
            None => format!("expected to be best of {candidates} on a software driver"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::ForwardOptions;
    use crate::plan::DeviceProfile;

    #[test]
    fn plans_in_words_say_what_runs_and_why() {
        let forward = Operation::Forward(ForwardOptions::default());
        let config = Config { d_in: 4096, d_out: 4096, rank: 8, experts: 4, ..Config::default() };
        let mut planner = Planner::new(DeviceProfile::new(wgpu::Limits::default(), 256));
        let text = planner.describe(&forward, &config, 512).expect("it fits");
        assert!(text.starts_with("forward of HydraLoRA 4096 -> 4096, rank 8, 4 experts"), "{text}");
        // One for each plan.
        let plans = planner.plan_all(&forward, &config, 512).expect("it fits").len();
        assert!(plans > 1);
        assert_eq!(text.matches("\nup to ").count(), plans, "{text}");
        assert_eq!(text.matches("predicted to be best of ").count(), plans, "{text}");
        assert!(text.contains("\nup to 8 tokens: shrink, forward\n"), "{text}");

        let choice = planner.choices(&forward, &config, 512).expect("it fits")[1];
        planner.tuning.set(&config, 512, forward, choice);
        let text = planner.describe(&forward, &config, 512).expect("it fits");
        assert!(text.ends_with("measured to be best on this device"), "{text}");
        let capacity = Capacity { tokens: 512, plans: Plans::Invariant };
        let text = planner.describe(&forward, &config, capacity).expect("it fits");
        assert!(text.ends_with("sums have one order for any number of tokens"), "{text}");
    }
}
