//! The trials, and the records of their results.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hydralora::{LinearChoice, LinearWay, wgpu};
use libtest_mimic::{Completion, Failed, Measurement, Trial};

use crate::case::{Case, Planning};
use crate::compare::Distribution;
use crate::device::{ADAPTER_LIMITS, Device, Failure, Identity};
use crate::inputs::Inputs;
use crate::known::{self, KNOWN, Known, Verdict};
use crate::modes::Mode;
use crate::report::{Record, Report, Status};
use crate::{Options, cases, checkpoints, goldens, job, properties, random, robustness, selfcheck, shaders};

/// What a trial does.
pub type Run = Box<dyn FnOnce() -> Result<Option<Distribution>, Failure> + Send>;

/// A trial before the harness gets it: its name, its seed for a replay, and what it does.
pub struct Plan {
    pub name: String,
    pub kernel: &'static str,
    pub seed: Option<u64>,
    /// Whether a device that has WebGPU's default limits may refuse it.
    pub refusable: bool,
    pub run: Run,
}

impl Plan {
    pub fn new(
        name: impl Into<String>,
        kernel: &'static str,
        run: impl FnOnce() -> Result<Option<Distribution>, Failure> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), kernel, seed: None, refusable: false, run: Box::new(run) }
    }
}

/// The records of all trials so far.
pub struct Suite {
    identities: Vec<Identity>,
    records: Mutex<Vec<Record>>,
    /// Locked while a trial runs on GL. wgpu panics if a thread waits for the one GL context longer than a
    /// second, and another thread may need longer to compile.
    gl: Mutex<()>,
    begin: Instant,
    fail_fast: bool,
}

impl Suite {
    pub fn new(devices: &[Arc<dyn Device>], fail_fast: bool) -> Self {
        let identities = devices.iter().map(|device| device.identity().clone()).collect();
        Self { identities, records: Mutex::default(), gl: Mutex::default(), begin: Instant::now(), fail_fast }
    }

    pub fn report(&self) -> Report {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report { identities: self.identities.clone(), records, seconds: self.begin.elapsed().as_secs_f64() }
    }

    /// Runs a trial and records how it went.
    fn run(&self, device: &dyn Device, plan: Plan, known: &[Known]) -> Result<Completion, Failed> {
        let Plan { name, kernel, seed, refusable, run } = plan;
        let identity = device.identity();
        let must_run = !refusable && wgpu::Limits::default().check_limits(&device.profile().limits);
        let alone = || self.gl.lock().unwrap_or_else(PoisonError::into_inner);
        let _alone = identity.adapter.starts_with("Gl/").then(alone);
        let begin = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<&str>().map(ToString::to_string);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            Err(Failure::Failed(format!("panic: {text}")))
        });
        let outcome = match outcome {
            // A refusal must not hide a failure on what every WebGPU device can do.
            Err(Failure::Unsupported(reason)) if must_run => Err(Failure::Failed(format!(
                "refused, although the device has WebGPU's default limits, and these suffice: {reason}"
            ))),
            outcome => outcome,
        };
        let mut record = Record {
            device: identity.label(),
            case: name,
            kernel,
            seed: seed.map(|seed| format!("{seed:#018x}")),
            status: Status::Passed,
            message: None,
            distribution: None,
            milliseconds: begin.elapsed().as_secs_f64() * 1e3,
        };
        let (status, message) = match known::judge(known, identity, &record.case, &outcome) {
            Verdict::AsUsual => match outcome {
                Ok(distribution) => {
                    record.distribution = distribution;
                    (Status::Passed, None)
                }
                Err(Failure::Unsupported(reason)) => (Status::Unsupported, Some(reason)),
                Err(Failure::Failed(message)) => (Status::Failed, Some(message)),
            },
            Verdict::Known(reason) => (Status::Known, Some(reason)),
            Verdict::NoLongerFails(message) => (Status::Failed, Some(message)),
        };
        (record.status, record.message) = (status, message.clone());
        let message = message.unwrap_or_default();
        if self.fail_fast && status == Status::Failed {
            println!("first failure: {}: {message}", record.case);
            std::process::exit(1);
        }
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
        match status {
            Status::Passed => Ok(Completion::Completed),
            Status::Unsupported => Ok(Completion::ignored_with(format!("unsupported: {message}"))),
            Status::Known => Ok(Completion::ignored_with(format!("known failure: {message}"))),
            Status::Failed => Err(match seed {
                Some(seed) => format!("{message}\nreplay with --replay {seed:#018x}"),
                None => message,
            }
            .into()),
        }
    }
}

/// Every trial on every device.
pub fn trials(suite: &Arc<Suite>, devices: &[Arc<dyn Device>], options: &Options) -> Vec<Trial> {
    if options.harness.bench {
        return devices.iter().flat_map(speed).collect();
    }
    let on_device = |device: &Arc<dyn Device>| -> Vec<Trial> {
        let trial = |plan: Plan| {
            let (suite, device) = (Arc::clone(suite), Arc::clone(device));
            let name = format!("[{}] {}", device.identity().label(), plan.name);
            Trial::ignorable_test(name, move || suite.run(&*device, plan, KNOWN))
        };
        plans(device, options).into_iter().map(trial).collect()
    };
    let mut trials = interleave(devices.iter().map(on_device).collect());
    if options.replay.is_none() {
        trials.extend(selfcheck::trials());
    }
    trials
}

/// Takes one trial of each list in turn, from every second list backwards. Software drivers compile in one
/// thread for each device, and cache what they compiled. So two devices share the work and meet in the
/// middle.
fn interleave(lists: Vec<Vec<Trial>>) -> Vec<Trial> {
    let mut lists: Vec<_> = lists.into_iter().map(VecDeque::from).collect();
    let mut trials = Vec::new();
    while lists.iter().any(|list| !list.is_empty()) {
        for (index, list) in lists.iter_mut().enumerate() {
            trials.extend(if index.is_multiple_of(2) { list.pop_front() } else { list.pop_back() });
        }
    }
    trials
}

/// Every trial on one device.
fn plans(device: &Arc<dyn Device>, options: &Options) -> Vec<Plan> {
    if !device.runs() {
        return shaders::plans(device);
    }
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
    if device.identity().limits_of != ADAPTER_LIMITS {
        fixed.retain(|case| !matches!(case.planning, Planning::Chosen(..) | Planning::Linear(_)));
        // Nor what options do. The most bindings are those of a mask and a gradient that is added.
        fixed.retain(|case| !case.has_options() || (case.mask && case.gate_gradient.is_some()));
    }
    if let Some(seed) = options.replay {
        return match fixed.into_iter().find(|case| case.seed() == seed) {
            Some(case) => case_plans(device, &case),
            None if seed <= random::LARGEST_SEED => vec![random::plan(device, seed)],
            None => Vec::new(),
        };
    }
    let mut plans: Vec<Plan> = fixed.iter().flat_map(|case| case_plans(device, case)).collect();
    plans.extend(goldens::plans(device));
    plans.extend(properties::plans(device));
    // Other limits change plans, but no arithmetic. So these run only with the adapter's own limits.
    if device.identity().limits_of == ADAPTER_LIMITS {
        plans.extend((0..u64::from(options.random)).map(|seed| random::plan(device, seed)));
        plans.extend(goldens::half_plans(device));
        plans.extend(checkpoints::plans(device));
        plans.extend(robustness::plans(device));
    }
    if let Some(partition) = options.partition {
        plans.retain(|plan| partition.contains(plan));
    }
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
            Plan { seed: Some(seed), refusable, ..Plan::new(name, kernel, move || mode.run(&*device, &case)) }
        })
        .collect()
}

/// The number of runs of a job that a speed trial times.
const TIMED_RUNS: u32 = 10;

/// The speed mode: wall-clock time of a submission, for the cases with the device's own plans.
fn speed(device: &Arc<dyn Device>) -> Vec<Trial> {
    let timed = |case: &Case| case.inputs == Inputs::Noise && case.planning == Planning::Device;
    cases::all()
        .into_iter()
        .filter(timed)
        .map(|case| {
            let device = Arc::clone(device);
            let name = format!("[{}] {case}/speed", device.identity().label());
            Trial::bench(name, move |_| {
                let job = case.job();
                let memory = job::Memory::new(&job, case.placement);
                match device.time(&job, &memory, case.planning, TIMED_RUNS) {
                    Ok(times) => {
                        let nanoseconds: Vec<f64> = times.iter().map(|time| time.as_nanos() as f64).collect();
                        let mean = nanoseconds.iter().sum::<f64>() / nanoseconds.len() as f64;
                        let variance = nanoseconds.iter().map(|ns| (ns - mean).powi(2)).sum::<f64>()
                            / nanoseconds.len() as f64;
                        // The harness prints `variance` as the deviation from the mean.
                        Ok(Some(Measurement { avg: mean as u64, variance: variance.sqrt() as u64 }))
                    }
                    Err(Failure::Unsupported(_)) => Ok(None),
                    Err(Failure::Failed(message)) => Err(message.into()),
                }
            })
        })
        .collect()
}
