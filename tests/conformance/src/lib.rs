//! The conformance suite. It compares every kernel on every adapter with float64 twins, which derive their
//! bounds, and with the results of the official code. It also checks the library's promises that are not
//! about numbers. It runs as `cargo test --test conformance`, as `cargo xtask conformance`, or as the
//! executable that `cargo xtask bundle` builds.
//!
//! Trials are named `[adapter] kernel/options/element/shape/...`. A case that a device cannot run is counted
//! separately, with the reason.

mod case;
mod cases;
mod checkpoints;
mod compare;
mod dawn;
mod device;
mod driver;
mod goldens;
mod inputs;
mod job;
mod known;
mod line;
mod modes;
mod op;
mod partition;
pub mod permutations;
mod properties;
mod random;
mod report;
mod robustness;
mod selfcheck;
mod shaders;
mod suite;
mod support;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use hydralora::device::NO_ADAPTER_HELP;

use device::{Device, WgpuDevice};
use partition::Partition;
use suite::Suite;

/// Tests hydralora's kernels on every GPU adapter of this machine.
#[derive(Parser)]
#[command(name = "hydralora-conformance", version)]
pub struct Options {
    #[command(flatten)]
    harness: libtest_mimic::Arguments,
    /// Test only adapters whose name contains this (`WGPU_BACKEND` and `WGPU_ADAPTER_NAME` also select)
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Write all results to one file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a JSON file and a Markdown report for each adapter into this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Run only the case with this seed (reports give it), in every mode
    #[arg(long, value_name = "SEED", value_parser = seed)]
    replay: Option<u64>,
    /// Run only this part of the trials, such as 1/3; a trial's name decides which part it belongs to
    #[arg(long, value_name = "PART/PARTS")]
    partition: Option<Partition>,
    /// Number of random cases on each adapter; their seeds start at 0
    #[arg(long, value_name = "COUNT", default_value_t = 24)]
    random: u32,
    /// Stop at the first failure
    #[arg(long)]
    fail_fast: bool,
    /// Run the trials whose names contain this before all others
    #[arg(long, value_name = "TEXT")]
    first: Option<String>,
    /// List which cases each device can run and what it lacks for the others, and run nothing
    #[arg(long)]
    support: bool,
    /// Write every shader and its translations to other languages into this folder, and run nothing
    #[arg(long, value_name = "FOLDER")]
    shaders: Option<PathBuf>,
    /// Write the shader with the largest numbers of those that differ in nothing else, likewise
    #[arg(long, value_name = "FOLDER")]
    kinds_of_shaders: Option<PathBuf>,
    /// Write the shaders that GPUs get for layers of real models into this folder, likewise
    #[arg(long, value_name = "FOLDER")]
    planned_shaders: Option<PathBuf>,
    /// For the out-of-memory trial, which starts this executable again
    #[arg(long, hide = true)]
    exhaust_memory: bool,
    /// The implementation under test and its version, for the report
    #[arg(long, value_name = "TEXT", env = "HYDRALORA_IMPLEMENTATION")]
    implementation: Option<String>,
}

fn seed(text: &str) -> Result<u64, String> {
    let digits = text.trim_start_matches("0x");
    u64::from_str_radix(digits, 16).map_err(|error| format!("expected a seed like 0x1f2e, {error}"))
}

/// Runs the suite, or whatever else the options ask for.
#[must_use]
pub fn run(options: Options) -> ExitCode {
    robustness::install_logger();
    match try_run(options) {
        Ok(code) => code,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn try_run(mut options: Options) -> Result<ExitCode, String> {
    let every = options.shaders.as_deref().map(shaders::write_every);
    let kinds = options.kinds_of_shaders.as_deref().map(shaders::write_kinds);
    let planned = options.planned_shaders.as_deref().map(shaders::write_planned);
    let written: Vec<_> = every.into_iter().chain(kinds).chain(planned).collect::<Result<_, _>>()?;
    if !written.is_empty() {
        println!("{} shaders written", written.iter().sum::<usize>());
        return Ok(ExitCode::SUCCESS);
    }
    if options.exhaust_memory {
        return robustness::exhaust_memory().map(|()| ExitCode::SUCCESS);
    }
    let devices = devices(&options)?;
    if options.support {
        support::print(&devices);
        return Ok(ExitCode::SUCCESS);
    }
    if options.harness.bench {
        options.harness.test_threads = Some(1);
    }
    // A trial often waits for another one on the same device. Let others use the processor meanwhile.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    options.harness.test_threads.get_or_insert(2 * threads);
    let suite = Arc::new(Suite::new(&devices, options.fail_fast));
    let mut trials = suite::trials(&suite, &devices, &options);
    if let Some(first) = &options.first {
        trials.sort_by_key(|trial| !trial.name().contains(first));
    }
    let conclusion = libtest_mimic::run(&options.harness, trials);
    checkpoints::clean_up();
    if options.harness.list {
        return Ok(ExitCode::SUCCESS);
    }
    if conclusion.num_passed + conclusion.num_failed + conclusion.num_measured == 0 {
        return Err("no case was run: no name or seed matches, or the device can run none of the cases \
                    that match"
            .to_owned());
    }
    let report = suite.report();
    report.print();
    if let Some(folder) = options.out.or_else(beside_the_build) {
        report.write_folder(&folder)?;
    }
    if let Some(file) = &options.json {
        report.write_json(file)?;
    }
    Ok(conclusion.exit_code())
}

/// The project's `target/conformance`, if cargo runs the suite.
fn beside_the_build() -> Option<PathBuf> {
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    // The variable may be that of another package, whose program cargo runs and which started this one.
    let project = package.ends_with("tests/conformance").then(|| package.ancestors().nth(2)).flatten()?;
    Some(project.join("target/conformance"))
}

fn devices(options: &Options) -> Result<Vec<Arc<dyn Device>>, String> {
    let implementation = options.implementation.as_deref();
    let devices: Vec<Arc<dyn Device>> = match dawn::from_env(implementation)? {
        Some(dawn) => vec![Arc::new(dawn)],
        None => WgpuDevice::all(options.adapter.as_deref(), implementation)?
            .into_iter()
            .map(|device| Arc::new(device) as Arc<dyn Device>)
            .collect(),
    };
    if devices.is_empty() {
        return Err(format!("no GPU adapter was found, so nothing can be tested: {NO_ADAPTER_HELP}"));
    }
    Ok(devices)
}
