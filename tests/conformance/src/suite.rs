//! The trials on a device, and how each is run and judged.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;

use hydralora::{LinearChoice, LinearWay, wgpu};
use web_time::Instant;

use crate::case::{Case, Planning, Shape};
use crate::compare::Distribution;
use crate::device::{ADAPTER_LIMITS, Device, Failure, Pending};
use crate::goldens::File;
use crate::job::Placement;
use crate::known::{self, Known, Verdict};
use crate::modes::Mode;
use crate::partition::Partition;
use crate::report::{Record, Status};
use crate::{cases, goldens, properties, random};

/// How a trial ends: with the distribution of error / bound, if numbers were compared.
pub type Outcome = Result<Option<Distribution>, Failure>;

/// What a trial does.
pub type Run = Box<dyn FnOnce() -> Pending<'static, Option<Distribution>> + Send>;

/// A trial: its name, its seed for a replay, and what it does.
pub struct Plan {
    pub name: String,
    pub kernel: &'static str,
    pub seed: Option<u64>,
    /// Whether a device that has WebGPU's default limits may refuse it.
    pub refusable: bool,
    /// How large it is, next to others of its kind.
    pub size: u64,
    pub run: Run,
}

impl Plan {
    pub fn new<F: Future<Output = Outcome> + 'static>(
        name: impl Into<String>,
        kernel: &'static str,
        run: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        let run: Run = Box::new(move || Box::pin(run()));
        Self { name: name.into(), kernel, seed: None, refusable: false, size: 0, run }
    }

    /// The same trial, ended from outside.
    #[must_use]
    pub fn failing(self, message: String) -> Self {
        Self { run: Box::new(move || Box::pin(async { Err(Failure::Failed(message)) })), ..self }
    }
}

/// The kind of a trial with this name: operation, router and elements, and whether it is about one token's NaN or infinity. It is
/// the name without the shape, its numbers and its plans.
#[must_use]
pub fn kind(name: &str) -> String {
    let shape = |part: &&str| part.starts_with('T') && part.contains("_k");
    let before = name.split('/').take_while(|part| !shape(part));
    let isolation = name.ends_with("/isolation").then_some("isolation");
    before.chain(isolation).collect::<Vec<_>>().join("/")
}

/// Which trials run.
#[derive(Debug, Clone, Copy)]
pub struct Selection {
    /// Only the case with this seed, in every mode.
    pub replay: Option<u64>,
    /// Only a part of the trials.
    pub partition: Option<Partition>,
    /// The number of random cases.
    pub random: u32,
    /// Of the fixed cases only a small one of each kind, no random ones, and of the goldens those in f32: a look at every
    /// operation and element type in a few minutes.
    pub quick: bool,
}

impl Default for Selection {
    fn default() -> Self {
        Self { replay: None, partition: None, random: RANDOM_CASES, quick: false }
    }
}

/// The number of random cases, unless somebody asks for another one.
pub const RANDOM_CASES: u32 = 24;

/// A seed as reports give it.
///
/// # Errors
/// It is none.
pub fn seed(text: &str) -> Result<u64, String> {
    let digits = text.trim_start_matches("0x");
    u64::from_str_radix(digits, 16).map_err(|error| format!("expected a seed like 0x1f2e, {error}"))
}

/// The selected trials on a device, with those that belong to this machine alone behind the others.
pub fn plans(
    device: &Arc<dyn Device>,
    selection: &Selection,
    goldens: &[File],
    of_machine: Vec<Plan>,
) -> Vec<Plan> {
    let mut fixed = cases::all();
    fixed.extend(cases::largest(device.profile()));
    // Without matrices of the size, another plan would run.
    fixed.retain(|case| match case.planning {
        Planning::Linear(LinearChoice { way: LinearWay::Matrices { size }, .. }) => {
            size == device.profile().matrices
        }
        _ => true,
    });
    // Other limits change the device's plans, but not chosen ones.
    let own_limits = device.identity().limits_of == ADAPTER_LIMITS;
    if !own_limits {
        fixed.retain(|case| !matches!(case.planning, Planning::Chosen(..) | Planning::Linear(_)));
        // Nor what options do, but those with the most bindings, which are those of a mask and a gradient that is added;
        // and dropout, whose random numbers are computed in another way without the adapter's features.
        let counts =
            |case: &Case| case.shape.dropout.is_some() || (case.mask && case.gate_gradient.is_some());
        fixed.retain(|case| !case.has_options() || counts(case));
    }
    if let Some(seed) = selection.replay {
        return match fixed.into_iter().find(|case| case.seed() == seed) {
            Some(case) => case_plans(device, &case),
            None if seed <= random::LARGEST_SEED => vec![random::plan(device, seed)],
            None => Vec::new(),
        };
    }
    let mut plans: Vec<Plan> = fixed.iter().flat_map(|case| case_plans(device, case)).collect();
    plans.extend(goldens::plans(device, goldens));
    plans.extend(properties::plans(device));
    // Other limits change plans, but no arithmetic. So these run only with the adapter's own limits.
    if own_limits {
        // A quick look has the fixed cases' kinds and element types.
        if !selection.quick {
            plans.extend((0..u64::from(selection.random)).map(|seed| random::plan(device, seed)));
            plans.extend(goldens::half_plans(device, goldens));
        }
        plans.extend(of_machine);
    }
    if let Some(partition) = selection.partition {
        plans.retain(|plan| partition.contains(plan));
    }
    if selection.quick { quick(plans) } else { plans }
}

/// The smallest case of each kind, in every mode, and all that is no case.
fn quick(mut plans: Vec<Plan>) -> Vec<Plan> {
    let mut smallest: HashMap<String, (u64, Option<u64>)> = HashMap::new();
    for plan in &plans {
        let kept = smallest.entry(kind(&plan.name)).or_insert((plan.size, plan.seed));
        if plan.size < kept.0 {
            *kept = (plan.size, plan.seed);
        }
    }
    plans.retain(|plan| smallest.get(&kind(&plan.name)).is_some_and(|&(_, seed)| seed == plan.seed));
    plans
}

fn case_plans(device: &Arc<dyn Device>, case: &Case) -> Vec<Plan> {
    // Other limits change the device's plans, but not whether they give the same bits again.
    let again = device.identity().limits_of == ADAPTER_LIMITS;
    let modes = Mode::of(case).into_iter().filter(|&mode| again || mode != Mode::Determinism);
    modes
        .map(|mode| {
            let (device, case) = (Arc::clone(device), case.clone());
            let (name, kernel, seed) = (format!("{case}{mode}"), case.operation.kernel(), case.seed());
            let refusable = case.beyond_defaults;
            let size = size(&case);
            let run = move || async move { mode.run(&*device, &case).await };
            Plan { seed: Some(seed), refusable, size, ..Plan::new(name, kernel, run) }
        })
        .collect()
}

/// Of a case with more tokens than the smallest tile has, several experts, and nothing else that is out of the ordinary.
/// Others have the largest number there is.
fn size(case: &Case) -> u64 {
    let Shape { tokens, d_in, d_out, rank, experts, .. } = case.shape;
    let whole = d_in > 8 && (tokens > 8 || case.operation.kernel() == "adamw");
    let gated = experts > 1 || case.operation.router().is_none();
    let plain = case.planning == Planning::Device
        && case.placement == Placement::Separate
        && case.room + case.gap == 0;
    if whole && gated && plain && !case.has_options() {
        u64::from(tokens) * u64::from(d_in + d_out) * u64::from(rank + experts)
    } else {
        u64::MAX
    }
}

/// Runs a trial and records how it went.
pub async fn run(device: &dyn Device, plan: Plan, known: &[Known]) -> Record {
    let Plan { name, kernel, seed, refusable, run, .. } = plan;
    let identity = device.identity();
    let must_run = !refusable && wgpu::Limits::default().check_limits(&device.profile().limits);
    let begin = Instant::now();
    let outcome = match caught(async { run().await }).await {
        // A refusal must not hide a failure on what every WebGPU device can do.
        Err(Failure::Unsupported(reason)) if must_run => Err(Failure::Failed(format!(
            "refused, although the device has WebGPU's default limits, and these suffice: {reason}"
        ))),
        outcome => outcome,
    };
    let milliseconds = begin.elapsed().as_secs_f64() * 1e3;
    let (status, message, distribution) = match known::judge(known, identity, &name, &outcome) {
        Verdict::AsUsual => match outcome {
            Ok(distribution) => (Status::Passed, None, distribution),
            Err(Failure::Unsupported(reason)) => (Status::Unsupported, Some(reason), None),
            Err(Failure::Failed(message)) => (Status::Failed, Some(message), None),
        },
        Verdict::Known(reason) => (Status::Known, Some(reason), None),
        Verdict::NoLongerFails(message) => (Status::Failed, Some(message), None),
    };
    Record {
        device: identity.label(),
        case: name,
        kernel: kernel.to_owned(),
        seed: seed.map(|seed| format!("{seed:#018x}")),
        status,
        message,
        distribution,
        milliseconds,
    }
}

/// The future's outcome, or its panic as a failure. A browser ends the whole instance at a panic.
pub async fn caught<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let mut future = pin!(future);
    std::future::poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context)));
        polled.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            std::task::Poll::Ready(Err(Failure::Failed(format!("panic: {text}"))))
        })
    })
    .await
}
