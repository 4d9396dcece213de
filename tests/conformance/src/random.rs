//! Random cases. Each is drawn from a seed, and a failing one is shrunk to the smallest case that fails.

use std::sync::Arc;

use proptest::strategy::{Strategy as _, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use crate::case::Case;
use crate::cases;
use crate::compare::Distribution;
use crate::device::{Device, Failure};
use crate::modes::{Mode, correctness};
use crate::suite::{Plan, caught};

/// The largest seed of a random case. Larger seeds belong to fixed cases.
pub const LARGEST_SEED: u64 = u32::MAX as u64;

/// The most steps of shrinking. Each step compiles new shaders.
const MOST_SHRINKING: u32 = 40;

/// The random case of a seed, in every mode.
pub fn plan(device: &Arc<dyn Device>, seed: u64) -> Plan {
    let device = Arc::clone(device);
    let run = move || async move {
        let mut cases = tree(seed)?;
        match in_every_mode(&*device, &cases.current()).await {
            Err(Failure::Failed(message)) => Err(shrunk(&*device, &mut cases, message).await),
            outcome => outcome,
        }
    };
    Plan { seed: Some(seed), ..Plan::new(format!("random/{seed:#018x}"), "random", run) }
}

/// A seed's case, and the smaller ones that it can be shrunk to.
fn tree(seed: u64) -> Result<impl ValueTree<Value = Case>, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let runner =
        |rng| TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    // proptest draws each case of a run with a generator of its own.
    let rng = runner(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes)).new_rng();
    cases::random().new_tree(&mut runner(rng)).map_err(|reason| reason.to_string())
}

async fn in_every_mode(device: &dyn Device, case: &Case) -> Result<Option<Distribution>, Failure> {
    let all = async {
        let distribution = correctness(device, case).await?;
        for mode in Mode::of(case).into_iter().skip(1) {
            mode.run(device, case).await?;
        }
        Ok(Some(distribution))
    };
    caught(all).await.map_err(|failure| match failure {
        Failure::Failed(message) => Failure::Failed(format!("{case}: {message}")),
        refused @ Failure::Unsupported(_) => refused,
    })
}

/// The failure of the smallest case that fails.
async fn shrunk(
    device: &dyn Device,
    cases: &mut impl ValueTree<Value = Case>,
    mut message: String,
) -> Failure {
    let mut smallest = cases.current();
    let mut smaller = cases.simplify();
    for _ in 0..MOST_SHRINKING {
        if !smaller {
            break;
        }
        let case = cases.current();
        smaller = match in_every_mode(device, &case).await {
            Err(Failure::Failed(of_smaller)) => {
                (message, smallest) = (of_smaller, case);
                cases.simplify()
            }
            _ => cases.complicate(),
        };
    }
    Failure::Failed(format!("{message}\nthe smallest failing case: {smallest:?}"))
}
