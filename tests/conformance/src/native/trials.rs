//! The trials in libtest's harness, and the records of their results.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use libtest_mimic::{Completion, Failed, Measurement, Trial};

use super::adapters::NativeDevice;
use super::{Options, checkpoints, golden_files, robustness, selfcheck, shaders};
use crate::case::{Case, Planning};
use crate::device::{Device, Failure, Identity};
use crate::inputs::Inputs;
use crate::known::{KNOWN, Known};
use crate::report::{Record, Report, Status};
use crate::suite::{Plan, Selection};
use crate::{cases, job, suite};

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
    pub fn new(devices: &[Arc<dyn NativeDevice>], fail_fast: bool) -> Self {
        let identities = devices.iter().map(|device| device.identity().clone()).collect();
        Self { identities, records: Mutex::default(), gl: Mutex::default(), begin: Instant::now(), fail_fast }
    }

    pub fn report(&self) -> Report {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Report { identities: self.identities.clone(), records, seconds: self.begin.elapsed().as_secs_f64() }
    }

    /// Runs a trial and records how it went.
    fn run(&self, device: &dyn Device, plan: Plan, known: &[Known]) -> Result<Completion, Failed> {
        let alone = || self.gl.lock().unwrap_or_else(PoisonError::into_inner);
        let _alone = device.identity().adapter.starts_with("Gl/").then(alone);
        let record = pollster::block_on(suite::run(device, plan, known));
        let (status, seed) = (record.status, record.seed.clone());
        let message = record.message.clone().unwrap_or_default();
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
                Some(seed) => format!("{message}\nreplay with --replay {seed}"),
                None => message,
            }
            .into()),
        }
    }
}

/// Every trial on every device.
pub fn trials(suite: &Arc<Suite>, devices: &[Arc<dyn NativeDevice>], options: &Options) -> Vec<Trial> {
    if options.harness.bench {
        return devices.iter().flat_map(speed).collect();
    }
    let on_device = |device: &Arc<dyn NativeDevice>| -> Vec<Trial> {
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
fn plans(device: &Arc<dyn NativeDevice>, options: &Options) -> Vec<Plan> {
    if !device.runs() {
        return shaders::plans(device);
    }
    let Options { replay, partition, random, .. } = *options;
    let plain: Arc<dyn Device> = Arc::clone(device) as _;
    let mut of_machine = checkpoints::plans(&plain);
    of_machine.extend(robustness::plans(device));
    let goldens = golden_files::files().unwrap_or_else(|message| {
        of_machine.push(Plan::new("goldens", "goldens", || async { Err(Failure::Failed(message)) }));
        Vec::new()
    });
    let selection = Selection { replay, partition, random, quick: false };
    suite::plans(&plain, &selection, &goldens, of_machine)
}

/// The number of runs of a job that a speed trial times.
const TIMED_RUNS: u32 = 10;

/// The speed mode: wall-clock time of a submission, for the cases with the device's own plans.
fn speed(device: &Arc<dyn NativeDevice>) -> Vec<Trial> {
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
