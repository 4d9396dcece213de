//! Random cases. Each is drawn from a seed, and a failing one is shrunk to the smallest case that fails.

use std::cell::RefCell;
use std::sync::Arc;

use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::cases;
use crate::device::{Device, Failure};
use crate::modes::{Mode, correctness};
use crate::suite::Plan;

/// The largest seed of a random case. Larger seeds belong to fixed cases.
pub const LARGEST_SEED: u64 = u32::MAX as u64;

/// The most steps of shrinking. Each step compiles new shaders.
const MOST_SHRINKING: u32 = 40;

/// The random case of a seed, in every mode.
pub fn plan(device: &Arc<dyn Device>, seed: u64) -> Plan {
    let device = Arc::clone(device);
    let run = move || {
        let distribution = RefCell::new(None);
        let refused = RefCell::new(None);
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        let config = Config {
            cases: 1,
            max_shrink_iters: MOST_SHRINKING,
            failure_persistence: None,
            ..Config::default()
        };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
        let outcome = TestRunner::new_with_rng(config, rng).run(&cases::random(), |case| {
            let ask = || {
                distribution.replace(Some(correctness(&*device, &case)?));
                Mode::of(&case).into_iter().skip(1).try_for_each(|mode| mode.run(&*device, &case).map(drop))
            };
            match ask() {
                Ok(()) => Ok(()),
                Err(Failure::Unsupported(reason)) => {
                    refused.replace(Some(reason));
                    Ok(())
                }
                Err(Failure::Failed(message)) => Err(TestCaseError::fail(format!("{case}: {message}"))),
            }
        });
        match (outcome, refused.take()) {
            (Err(TestError::Fail(reason, case)), _) => {
                Err(Failure::Failed(format!("{reason}\nthe smallest failing case: {case:?}")))
            }
            (Err(error), _) => Err(Failure::Failed(error.to_string())),
            (Ok(()), Some(reason)) => Err(Failure::Unsupported(reason)),
            (Ok(()), None) => Ok(distribution.take()),
        }
    };
    Plan { seed: Some(seed), ..Plan::new(format!("random/{seed:#018x}"), "random", run) }
}
