//! `cargo xtask conformance`: runs the suite on this machine's adapters, or on an implementation that it
//! fetches.

use std::ffi::OsString;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use crate::implementation::{self, Implementation};
use crate::{Profile, cargo, cargo_command, driver};

/// Runs the suite on this machine's adapters.
pub(crate) fn on_adapters(options: &[OsString]) -> Result<(), String> {
    driver::ensure(Profile::Release)?;
    succeed(suite_command().args(options).status())
}

/// Runs the suite on every variant of an implementation. If it shall be quick, the variants share the trials and
/// run at the same time.
pub(crate) fn on_implementation(
    root: &Path,
    name: &str,
    quick: bool,
    options: &[OsString],
) -> Result<(), String> {
    let directory = root.join("target/implementations");
    if name == "translate" {
        return translate(root, &directory, quick);
    }
    let variants = implementation::provide(name, &directory)?;
    // Variants that run at the same time must find it built.
    cargo(&["build", "--quiet", "--release", "--bin", SUITE], &[])?;
    let outcomes: Vec<Result<(), String>> = if quick {
        let parts = variants.len();
        let share = |part| [&[format!("--partition={part}/{parts}").into()], options].concat();
        thread::scope(|scope| {
            let on_share = |(part, variant)| scope.spawn(move || on_variant(variant, &share(part), false));
            let threads: Vec<_> = (1..).zip(&variants).map(on_share).collect();
            let panicked = |_| Err("a thread panicked".to_owned());
            threads.into_iter().map(|thread| thread.join().unwrap_or_else(panicked)).collect()
        })
    } else {
        variants.iter().map(|variant| on_variant(variant, options, true)).collect()
    };
    let failures: Vec<String> = outcomes.into_iter().filter_map(Result::err).collect();
    if failures.is_empty() { Ok(()) } else { Err(failures.join("\n")) }
}

/// The suite's package, and its executable.
pub(crate) const SUITE: &str = "hydralora-conformance";

/// A command that runs the suite. The caller adds the suite's options.
pub(crate) fn suite_command() -> Command {
    cargo_command(&["run", "--quiet", "--release", "--bin", SUITE, "--"])
}

/// Runs the suite on one variant of an implementation. Prints its results as they come, or all at the end.
fn on_variant(variant: &Implementation, options: &[OsString], as_they_come: bool) -> Result<(), String> {
    let Implementation { name, version, env } = variant;
    let validated = env.iter().any(|(variable, _)| variable == "VK_INSTANCE_LAYERS");
    // The validation layer's lines about its own settings are noise. Its messages are judged at the end.
    let is_result =
        |line: &str| !validated || ["test ", "|", "- "].iter().any(|start| line.starts_with(start));
    let mut command = suite_command();
    command.args(options).envs(env.iter().cloned());
    command.env("HYDRALORA_IMPLEMENTATION", format!("{name} {version}"));
    let child = command.stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("cargo could not be run: {error}"))?;
    let output = child.stdout.take().into_iter().flat_map(|output| BufReader::new(output).lines());
    let lines: Vec<String> = output
        .map_while(Result::ok)
        .inspect(|line| {
            if as_they_come && is_result(line) {
                println!("{line}");
            }
        })
        .collect();
    let outcome = succeed(child.wait());

    let results: Vec<_> =
        lines.iter().map(String::as_str).filter(|line| !as_they_come && is_result(line)).collect();
    println!(
        "{}\n== {name} {version}: {}",
        results.join("\n"),
        if outcome.is_ok() { "passed" } else { "failed" }
    );
    let of_this = |error| format!("{name}: {error}");
    outcome.map_err(of_this)?;
    if validated {
        let messages = implementation::validation_messages(&lines.join("\n")).map_err(of_this)?;
        if let Some(first) = messages.first() {
            let count = messages.len();
            return Err(format!("{name}: {count} messages of the validation layer, the first:\n{first}"));
        }
        println!("{name}: no message of the validation layer");
    }
    Ok(())
}

fn succeed(status: std::io::Result<std::process::ExitStatus>) -> Result<(), String> {
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the suite failed ({status})")),
        Err(error) => Err(format!("cargo could not be run: {error}")),
    }
}

/// Gives every kind of shader to the compilers of other platforms.
fn translate(root: &Path, directory: &Path, quick: bool) -> Result<(), String> {
    let shaders = directory.join("shaders");
    // Remove the shaders of an earlier version.
    let _ = std::fs::remove_dir_all(&shaders);
    succeed(suite_command().arg("--kinds-of-shaders").arg(&shaders).status())?;
    let report = implementation::translate(directory, &shaders, quick)?;
    print!("{report}");
    let folder = root.join("target/conformance");
    let file = folder.join("translate.md");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&file, report.to_string()))
        .map_err(|error| format!("{}: {error}", file.display()))?;
    if report.passed() { Ok(()) } else { Err("compilers refuse shaders: see above".to_owned()) }
}
