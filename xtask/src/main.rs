//! The project's commands: `cargo xtask demo` and `cargo xtask test`.

mod driver;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand};

/// hydralora's commands. Each makes sure first that there is a GPU or a software driver to run on.
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
}

/// Cargo's build profile: each task looks for the driver in the profile it builds anyway.
#[derive(Clone, Copy)]
enum Profile {
    Dev,
    Release,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Demo { options } => {
            let help = options.iter().any(|option| option == "--help" || option == "-h");
            let ready = if help { Ok(()) } else { driver::ensure(Profile::Release) };
            ready.and_then(|()| {
                cargo(&["run", "--quiet", "--release", "--example", "finetune", "--"], &options)
            })
        }
        Task::Test { options } => {
            driver::ensure(Profile::Dev).and_then(|()| cargo(&["test", "--workspace"], &options))
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// Runs cargo; failure is an error.
fn cargo(arguments: &[&str], more: &[OsString]) -> Result<(), String> {
    let status = cargo_command(arguments).args(more).status();
    let status = status.map_err(|error| format!("cargo could not be run: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo {} failed ({status})", arguments.join(" "))) }
}

fn cargo_command(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    // Mesa and Wayland print an error for every process where it is missing, as in containers.
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        command.env("XDG_RUNTIME_DIR", std::env::temp_dir());
    }
    command
}
