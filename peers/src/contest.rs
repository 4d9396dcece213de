//! What is compared: the problem that everyone solves, timing in turn, and the check that the results agree.

use std::error::Error;
use std::iter::zip;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use hydralora::{Adapter, Config, Router};
use hydralora_benches::grid::Shape;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Results may differ by this part of the largest.
const TOLERANCE: f32 = 1e-3;

/// A layer's adapter, and inputs that take turns. The gradient of the outputs is one everywhere, because that
/// is what burn starts a backward with; anything else would cost burn operations that the others do not need.
pub struct Problem {
    pub config: Config,
    pub tokens: u32,
    pub adapter: Adapter,
    pub inputs: [Vec<f32>; 3],
}

impl Problem {
    pub fn new(shape: Shape) -> Outcome<Self> {
        let Shape { tokens, d_in, d_out, rank, experts } = shape;
        let config =
            Config { d_in, d_out, rank, experts, scaling: 2.0, router: Router::Input, ..Default::default() };
        let rng = &mut StdRng::seed_from_u64(0);
        let mut random =
            |rows: u32, columns: u32| (0..rows * columns).map(|_| rng.random_range(-1.0..1.0)).collect();
        // A fresh adapter's B_i are zero: y and most gradients would be.
        let b = (0..experts).map(|_| random(d_out, rank)).collect();
        let adapter = Adapter { b, ..Adapter::initialise(&config, 0)? };
        Ok(Self { config, tokens, adapter, inputs: [(); 3].map(|()| random(tokens, d_in)) })
    }
}

/// A forward, or a forward and backward.
pub trait Pass {
    /// Hands the device the work on one of the inputs.
    fn queue(&mut self, input: usize) -> Outcome<()>;

    /// Waits for the device.
    fn wait(&self) -> Outcome<()>;

    /// What the last run computed: y; with a backward also dx and the gradients of A, `W_g` and all `B_i`, each
    /// as [`Adapter`] has it.
    fn read(&self) -> Outcome<Vec<Vec<f32>>>;

    /// Gives the memory of what the last run computed back to burn's pools, where it is theirs.
    fn clear(&mut self);
}

/// What a pass costs: median milliseconds, and bytes.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From recording to the device's completion.
    pub whole: f64,
    /// Until all work is handed to the device.
    pub host: f64,
    /// By how much burn's memory pools grow for it and its results, in pages of theirs.
    pub memory: u64,
}

/// The costs of each pass. They run in turn and on changing inputs for at least `budget`; then what they computed last is
/// compared with the first's.
pub fn run(
    passes: &mut [Box<dyn Pass>],
    inputs: usize,
    budget: Duration,
    device: &Device,
) -> Outcome<Vec<Cost>> {
    // Pipelines are compiled and kernels chosen at the first runs.
    for pass in &mut *passes {
        (0..2 * inputs).try_for_each(|round| {
            pass.queue(round % inputs)?;
            pass.wait()
        })?;
    }
    let mut times = vec![Vec::new(); passes.len()];
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < 5 || begin.elapsed() < budget {
        for (pass, times) in zip(&mut *passes, &mut times) {
            let begin = Instant::now();
            pass.queue(rounds % inputs)?;
            let host = begin.elapsed();
            pass.wait()?;
            times.push([begin.elapsed(), host].map(|time| 1e3 * time.as_secs_f64()));
        }
        rounds += 1;
    }
    let results = passes.iter().map(|pass| pass.read()).collect::<Outcome<Vec<_>>>()?;
    for others in &results[1..] {
        assert_agree(&results[0], others);
    }
    for pass in &mut *passes {
        pass.clear();
    }
    let mut costs = Vec::new();
    for (pass, times) in zip(passes, &times) {
        let median = |at: usize| {
            let mut times: Vec<_> = times.iter().map(|times| times[at]).collect();
            times.sort_by(f64::total_cmp);
            times[times.len() / 2]
        };
        let reserved = || device.memory_pool_usage().map_or(0, |usage| usage.bytes_reserved);
        device.sync()?;
        device.memory_cleanup();
        let before = reserved();
        pass.queue(0)?;
        pass.wait()?;
        let memory = reserved().saturating_sub(before);
        pass.clear();
        costs.push(Cost { whole: median(0), host: median(1), memory });
    }
    Ok(costs)
}

/// A comparison of two things that compute something else is worth nothing.
fn assert_agree(expected: &[Vec<f32>], results: &[Vec<f32>]) {
    assert_eq!(expected.len(), results.len());
    for (name, (expected, result)) in zip(["y", "dx", "dA", "dW_g", "dB"], zip(expected, results)) {
        let largest = expected.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
        let agree = zip(expected, result).all(|(a, b)| (a - b).abs() <= TOLERANCE * largest);
        assert!(
            expected.len() == result.len() && agree,
            "{name} differs by more than {TOLERANCE} of {largest}"
        );
    }
}
