//! The modes of a case: what a trial checks.

use std::fmt::{self, Display};

use hydralora::twin::{self, Approx};
use hydralora::{Weighting, WriteMode};

use crate::case::{Case, Operation, Planning};
use crate::compare::{Distribution, Ratios};
use crate::device::{Device, Failure};
use crate::inputs::Inputs;
use crate::job::{Job, Memory, Placement, Results};
use crate::line::Line;

/// What a trial checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Every element is within the twin's bound, and nothing else in memory changes.
    Correctness,
    /// Two runs give the same bits, and so does a run repeated in one submission.
    Determinism,
    /// The gradient along a random direction is the slope of the float64 forward.
    Gradients,
    /// A NaN or an infinity in one token changes no other token.
    Isolation,
}

impl Mode {
    /// The modes that say something about the case.
    pub fn of(case: &Case) -> Vec<Self> {
        if !Inputs::FINITE.contains(&case.inputs) {
            // Losses have no tokens of their own: the twin leaves out the poisoned one.
            let of_batch = matches!(case.operation, Operation::GateLosses(_));
            return vec![if of_batch { Self::Correctness } else { Self::Isolation }];
        }
        let mut modes = vec![Self::Correctness];
        if case.inputs == Inputs::Noise {
            // Options change no order of sums, which a step shows for all operations that it has.
            let sums_of_its_own = matches!(
                case.operation,
                Operation::Step(_)
                    | Operation::StepWithLosses(_)
                    | Operation::GateLosses(_)
                    | Operation::GateGradients(_)
            );
            if !case.has_options() || sums_of_its_own {
                modes.push(Self::Determinism);
            }
            if matches!(case.operation, Operation::Step(_) | Operation::StepWithLosses(_))
                && case.write == WriteMode::Overwrite
            {
                modes.push(Self::Gradients);
            }
        }
        modes
    }

    /// Runs the case in this mode. Returns the distribution of error / bound if numbers were compared.
    pub async fn run(self, device: &dyn Device, case: &Case) -> Result<Option<Distribution>, Failure> {
        match self {
            Self::Correctness => correctness(device, case).await.map(Some),
            Self::Determinism => determinism(device, case).await.map(|()| None),
            Self::Gradients => gradients(device, case).await.map(Some),
            Self::Isolation => isolation(device, case).await.map(|()| None),
        }
    }
}

/// The end of a trial's name; empty for correctness.
impl Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Correctness => "",
            Self::Determinism => "/determinism",
            Self::Gradients => "/gradients",
            Self::Isolation => "/isolation",
        })
    }
}

/// Runs a case's job and checks the memory around its results.
pub async fn run(device: &dyn Device, case: &Case, job: &Job, times: u32) -> Result<Results, Failure> {
    run_job(device, job, case.placement, case.planning, times).await
}

/// Runs a job that belongs to no case, and checks the memory around its results.
pub async fn run_job(
    device: &dyn Device,
    job: &Job,
    placement: Placement,
    planning: Planning,
    times: u32,
) -> Result<Results, Failure> {
    let memory = Memory::new(job, placement);
    let after = device.run(job, &memory, planning, times).await?;
    Ok(memory.results(job, &after)?)
}

/// Compares a job's results with the twin's.
pub fn compare(job: &Job, results: &Results) -> Result<Distribution, String> {
    let expected = job.expected();
    let mut ratios = Ratios::default();
    for tensor in job.tensors.iter().filter(|tensor| tensor.written) {
        ratios.compare(&tensor.name, &results[&tensor.name], &expected[&tensor.name])?;
    }
    ratios.distribution()
}

pub async fn correctness(device: &dyn Device, case: &Case) -> Result<Distribution, Failure> {
    let job = case.job();
    let results = run(device, case, &job, 1).await?;
    if case.mask && case.write == WriteMode::Accumulate {
        masked_rows_keep_their_bits(&job, &results)?;
    }
    Ok(compare(&job, &results)?)
}

/// Checks that y and dx of tokens that take no adapter are what they were.
fn masked_rows_keep_their_bits(job: &Job, results: &Results) -> Result<(), String> {
    let mask = &job.tensor("mask").data;
    for tensor in job.tensors.iter().filter(|tensor| ["y", "dx"].contains(&tensor.name.as_str())) {
        let before = tensor.element.decode(&tensor.element.encode(&tensor.data));
        let rows = before.chunks(tensor.width).zip(results[&tensor.name].chunks(tensor.width));
        for (token, ((before, after), _)) in rows.zip(mask).enumerate().filter(|(_, (_, take))| **take == 0.0)
        {
            let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
            if let Some(at) = before.iter().zip(after).position(differs) {
                let name = &tensor.name;
                return Err(format!(
                    "{name} of masked token {token} was {} and is {} at {at}",
                    before[at], after[at]
                ));
            }
        }
    }
    Ok(())
}

async fn determinism(device: &dyn Device, case: &Case) -> Result<(), Failure> {
    let job = case.job();
    let first = run(device, case, &job, 1).await?;
    same_bits(&first, &run(device, case, &job, 1).await?, "run again")?;
    // A job that only overwrites its results gives the same ones when it is repeated.
    let overwrites =
        job.tensors.iter().filter(|tensor| tensor.written).all(|t| t.data.iter().all(|v| v.is_nan()));
    if overwrites {
        same_bits(&first, &run(device, case, &job, 3).await?, "run three times in one submission")?;
    }
    Ok(())
}

fn same_bits(first: &Results, second: &Results, how: &str) -> Result<(), String> {
    for (name, first) in first {
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        if let Some(at) = first.iter().zip(&second[name]).position(differs) {
            return Err(format!("{name}[{at}] was {} and is {} when {how}", first[at], second[name][at]));
        }
    }
    Ok(())
}

/// Half the distance between the points of the central differences, for inputs in -1..1.
const DISTANCE: f64 = 1e-3;

/// Compares the device's gradient with the slope of the float64 forward, along a random direction in x and
/// all parameters. The slope uses no backward code. The cotangent g is random too, because softmax is blind
/// to a constant one.
///
/// Activations are gentle, because for large logits the derived bounds of softmax grow beyond the slope.
async fn gradients(device: &dyn Device, case: &Case) -> Result<Distribution, Failure> {
    let case = &case.clone().with_inputs(Inputs::Gentle);
    let mut job = case.job();
    let mut line = Line::new(case, &job);
    if let Weighting::TopK { .. } = case.shape.weighting {
        leave_out_changing_tokens(case, &mut job, &mut line)?;
    }
    let results = run(device, case, &job, 1).await?;
    let expected = job.expected();
    // Richardson extrapolation: the error of central differences falls with the square of the distance.
    let slope = |distance: f64| (line.loss(distance) - line.loss(-distance)) / (2.0 * distance);
    let (near, far) = (slope(DISTANCE / 2.0), slope(DISTANCE));
    let slope = (4.0 * near - far) / 3.0;
    let slope_error = (near - far).abs() / 100.0 + 1e-10 * line.loss(0.0).abs() / DISTANCE;

    let mut along = 0.0;
    let (mut bounds, mut slopes) = (0.0, 0.0);
    for (name, direction) in [("dx", &line.x_direction), ("gradients", &line.packed_direction)] {
        for ((&actual, expected), direction) in results[name].iter().zip(&expected[name]).zip(direction) {
            along += f64::from(actual) * direction.value;
            bounds += expected.bound.powi(2);
            slopes += expected.value.powi(2) / 3.0;
        }
    }
    for (at, direction) in line.gates_direction() {
        along += f64::from(results["dstate"][at]) * direction;
        bounds += expected["dstate"][at].bound.powi(2);
    }
    // The device does not know the direction. So the errors' contributions are independent, each within its
    // bound and zero on average. Their sum exceeds six times the root of the summed squares of the bounds
    // with a probability of at most 2 exp(-18) (Hoeffding).
    let bound = slope_error + 6.0 * f64::sqrt(bounds);
    let typical = f64::sqrt(slopes);
    if typical < 10.0 * bound {
        return Err(Failure::Failed(format!(
            "slopes are around {typical:e}, with a bound of {bound:e}, so the check says nothing"
        )));
    }
    let mut ratios = Ratios::default();
    ratios.compare(
        "the slope",
        &[along as f32],
        &[Approx { value: slope, bound: bound + slope.abs() * twin::U }],
    )?;
    Ok(ratios.distribution()?)
}

/// A token whose experts change on the way has no slope. Its cotangent becomes zero.
fn leave_out_changing_tokens(case: &Case, job: &mut Job, line: &mut Line) -> Result<(), Failure> {
    let chosen = |distance| -> Vec<bool> { line.forward(distance).w.iter().map(|w| w.value > 0.0).collect() };
    let (here, there) = (chosen(0.0), [-DISTANCE, DISTANCE].map(chosen));
    let width = case.shape.d_out as usize;
    let gates = here.len() / case.shape.tokens as usize;
    let cotangent = job.tensors.iter_mut().find(|tensor| tensor.name == "g").expect("a step has g");
    let mut kept = 0;
    for token in 0..case.shape.tokens as usize {
        let own = token * gates..(token + 1) * gates;
        if there.iter().all(|there| there[own.clone()] == here[own.clone()]) {
            kept += 1;
            continue;
        }
        cotangent.data[token * width..(token + 1) * width].fill(0.0);
        line.g[token * width..(token + 1) * width].fill(Approx::exact(0.0));
    }
    if 2 * kept < case.shape.tokens {
        return Err(Failure::Failed(format!("only {kept} tokens keep their experts")));
    }
    Ok(())
}

/// Runs the case with and without its poisoned token, and compares the other tokens.
async fn isolation(device: &dyn Device, case: &Case) -> Result<(), Failure> {
    let clean_case = Case { seed: Some(case.seed()), ..case.clone() }.with_inputs(Inputs::Noise);
    let (clean_job, job) = (clean_case.job(), case.job());
    let (clean, poisoned) = (run(device, case, &clean_job, 1).await?, run(device, case, &job, 1).await?);
    let poisoned_token = case.inputs.poisoned_token(case.shape.tokens).expect("a poisoned token");
    for tensor in job.tensors.iter().filter(|tensor| tensor.written) {
        let rows = clean[&tensor.name].chunks(tensor.width).zip(poisoned[&tensor.name].chunks(tensor.width));
        for (token, (clean, poisoned)) in (0..).zip(rows) {
            if let Some(value) = clean.iter().find(|value| !value.is_finite()) {
                return Err(Failure::Failed(format!(
                    "{} of token {token} is {value} without poison",
                    tensor.name
                )));
            }
            let same = clean.iter().zip(poisoned).all(|(a, b)| a.to_bits() == b.to_bits());
            if token != poisoned_token && !same {
                return Err(Failure::Failed(format!(
                    "{} of token {token} changed with {} at token {poisoned_token}",
                    tensor.name, case.inputs
                )));
            }
            if token == poisoned_token && poisoned.iter().all(|value| value.is_finite()) {
                return Err(Failure::Failed(format!(
                    "{} of token {token} is finite in spite of {}",
                    tensor.name, case.inputs
                )));
            }
        }
    }
    Ok(())
}
