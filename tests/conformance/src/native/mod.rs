//! What only a machine of one's own can run: the command line, the harness with its threads, adapters of every
//! backend, and trials that need files, processes or the driver's functions.

mod adapters;
mod checkpoints;
mod dawn;
mod driver;
mod files;
mod golden_files;
pub mod permutations;
mod robustness;
mod selfcheck;
mod shaders;
mod support;
mod trials;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use hydralora::device::NO_ADAPTER_HELP;

use crate::partition::Partition;
use crate::suite;
use adapters::NativeDevice;
use trials::Suite;

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
    #[arg(long, value_name = "SEED", value_parser = suite::seed)]
    replay: Option<u64>,
    /// Run only this part of the trials, such as 1/3; a trial's name decides which part it belongs to
    #[arg(long, value_name = "PART/PARTS")]
    partition: Option<Partition>,
    /// Number of random cases on each adapter; their seeds start at 0
    #[arg(long, value_name = "COUNT", default_value_t = suite::RANDOM_CASES)]
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
    /// Write the shaders that GPUs get for layers of real models, likewise, into folders in this one: amd, nvidia, intel
    #[arg(long, value_name = "FOLDER")]
    planned_shaders: Option<PathBuf>,
    /// For the out-of-memory trial, which starts this executable again
    #[arg(long, hide = true)]
    exhaust_memory: bool,
    /// The implementation under test and its version, for the report
    #[arg(long, value_name = "TEXT", env = "HYDRALORA_IMPLEMENTATION")]
    implementation: Option<String>,
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
    let mut trials = trials::trials(&suite, &devices, &options);
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
    for adapter in report.adapters() {
        println!("{}", report.markdown(&adapter));
    }
    if let Some(folder) = options.out.or_else(beside_the_build) {
        files::write_folder(&report, &folder)?;
    }
    if let Some(file) = &options.json {
        files::write_json(&report, file)?;
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

fn devices(options: &Options) -> Result<Vec<Arc<dyn NativeDevice>>, String> {
    let implementation = options.implementation.as_deref();
    let devices: Vec<Arc<dyn NativeDevice>> = match dawn::from_env(implementation)? {
        Some(dawn) => vec![Arc::new(dawn)],
        None => adapters::all(options.adapter.as_deref(), implementation)?
            .into_iter()
            .map(|device| Arc::new(device) as Arc<dyn NativeDevice>)
            .collect(),
    };
    if devices.is_empty() {
        return Err(format!("no GPU adapter was found, so nothing can be tested: {NO_ADAPTER_HELP}"));
    }
    Ok(devices)
}
