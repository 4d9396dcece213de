//! `cargo xtask conformance`: runs the suite on this machine's adapters, or on an implementation that it
//! fetches.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::implementation::{self, Implementation};
use crate::{Profile, cargo_command, driver};

/// Runs the suite on this machine's adapters.
pub(crate) fn on_adapters(options: &[OsString]) -> Result<(), String> {
    driver::ensure(Profile::Release)?;
    suite(&[], options, None)
}

/// Runs the suite on every variant of an implementation.
pub(crate) fn on_implementation(root: &Path, name: &str, options: &[OsString]) -> Result<(), String> {
    let directory = root.join("target/implementations");
    if name == "translate" {
        return translate(root, &directory);
    }
    let mut failures = Vec::new();
    for Implementation { name, version, env } in implementation::provide(name, &directory)? {
        println!("\n== {name} {version}");
        let named = ("HYDRALORA_IMPLEMENTATION".to_owned(), format!("{name} {version}"));
        let env: Vec<_> = env.into_iter().chain([named]).collect();
        let mut messages = Vec::new();
        let validated = env.iter().any(|(variable, _)| variable == "VK_INSTANCE_LAYERS");
        let outcome = suite(&env, options, validated.then_some(&mut messages));
        failures.extend(outcome.err().map(|error| format!("{name}: {error}")));
        if validated {
            match implementation::validation_messages(&messages.join("\n")) {
                Ok(messages) if messages.is_empty() => println!("{name}: no message of the validation layer"),
                Ok(messages) => failures.push(format!(
                    "{name}: {} messages of the validation layer, the first:\n{}",
                    messages.len(),
                    messages[0]
                )),
                Err(error) => failures.push(format!("{name}: {error}")),
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// The suite's package, and its executable.
pub(crate) const SUITE: &str = "hydralora-conformance";

/// A command that runs the suite. The caller adds the suite's options.
pub(crate) fn suite_command() -> Command {
    cargo_command(&["run", "--quiet", "--release", "--bin", SUITE, "--"])
}

/// Runs the suite. If `kept` is given, all output is kept there, and the results are also printed.
fn suite(
    env: &[(String, String)],
    options: &[OsString],
    kept: Option<&mut Vec<String>>,
) -> Result<(), String> {
    let mut command = suite_command();
    command.args(options).envs(env.iter().cloned());
    let Some(kept) = kept else { return succeed(command.status()) };
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| format!("cargo could not be run: {error}"))?;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // The validation layer's lines about its own settings are noise. Its messages are judged at the
            // end.
            if line.starts_with("test ") || line.starts_with('|') || line.starts_with("- ") {
                println!("{line}");
            }
            kept.push(line);
        }
    }
    succeed(child.wait())
}

fn succeed(status: std::io::Result<std::process::ExitStatus>) -> Result<(), String> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the suite failed ({status})")),
        Err(error) => Err(format!("cargo could not be run: {error}")),
    }
}

/// Gives every kind of shader to the compilers of other platforms.
fn translate(root: &Path, directory: &Path) -> Result<(), String> {
    let shaders = directory.join("shaders");
    // Remove the shaders of an earlier version.
    let _ = std::fs::remove_dir_all(&shaders);
    succeed(suite_command().arg("--kinds-of-shaders").arg(&shaders).status())?;
    let report = implementation::translate(directory, &shaders)?;
    print!("{report}");
    let folder = root.join("target/conformance");
    let file = folder.join("translate.md");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&file, report.to_string()))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    if report.passed() { Ok(()) } else { Err("compilers refuse shaders: see above".to_owned()) }
}
