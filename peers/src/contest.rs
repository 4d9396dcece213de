//! What is compared: the problem that everyone solves, timing in turn, and the check that the results agree.

use std::error::Error;
use std::iter::zip;
use std::time::{Duration, Instant};

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
        let config = Config { d_in, d_out, rank, experts, scaling: 2.0, router: Router::Input, ..Default::default() };
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
    /// Computes with one of the inputs, and waits for the device.
    fn run(&mut self, input: usize) -> Outcome<()>;

    /// What the last run computed: y; with a backward also dx and the gradients of A, `W_g` and all `B_i`, each
    /// as [`Adapter`] has it.
    fn read(&self) -> Outcome<Vec<Vec<f32>>>;
}

/// The median milliseconds of each pass. They run in turn and on changing inputs, each time from recording to
/// the device's completion, for at least `budget`; then what they computed last is compared with the first's.
pub fn time(passes: &mut [Box<dyn Pass>], inputs: usize, budget: Duration) -> Outcome<Vec<f64>> {
    // Pipelines are compiled and kernels chosen at the first runs.
    for pass in &mut *passes {
        (0..2 * inputs).try_for_each(|round| pass.run(round % inputs))?;
    }
    let mut times = vec![Vec::new(); passes.len()];
    let begin = Instant::now();
    let mut rounds = 0;
    while rounds < 5 || begin.elapsed() < budget {
        for (pass, times) in zip(&mut *passes, &mut times) {
            let begin = Instant::now();
            pass.run(rounds % inputs)?;
            times.push(1e3 * begin.elapsed().as_secs_f64());
        }
        rounds += 1;
    }
    let results = passes.iter().map(|pass| pass.read()).collect::<Outcome<Vec<_>>>()?;
    for others in &results[1..] {
        assert_agree(&results[0], others);
    }
    Ok(times.into_iter().map(median).collect())
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
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
