//! Running programs and preparing folders, with errors that say what went wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// What a program prints; its failure is an error with what it said.
pub(crate) fn output(command: &mut Command) -> Result<String, String> {
    let result = command.stdin(Stdio::null()).output();
    let output = result.map_err(|error| format!("{} could not be run: {error}", name(command)))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned());
    }
    Err(format!("{} failed ({}):\n{}", name(command), output.status, said(&output)))
}

/// The end of what a program said on both of its outputs.
pub(super) fn said(output: &Output) -> String {
    let said = [&output.stdout[..], &output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(15)..].join("\n")
}

/// Whether a program runs and succeeds.
pub(crate) fn succeeds(program: &str, arguments: &[&str]) -> bool {
    output(Command::new(program).args(arguments)).is_ok()
}

/// Creates a folder with its parents and returns its absolute path.
pub(crate) fn create_directory(path: &Path) -> Result<PathBuf, String> {
    let created = fs::create_dir_all(path).and_then(|()| path.canonicalize());
    created.map_err(|error| format!("The folder {} could not be created: {error}", path.display()))
}

pub(crate) fn write(path: &Path, contents: impl AsRef<[u8]>) -> Result<(), String> {
    fs::write(path, contents).map_err(|error| format!("{} could not be written: {error}", path.display()))
}

/// Fills a folder all at once: `fill` gets an empty one beside it, which takes its name when it is
/// full, so that an interrupted run leaves nothing half done.
pub(super) fn fill_once(
    directory: &Path,
    fill: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    if directory.is_dir() {
        return Ok(());
    }
    let partial = directory.with_added_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial)
            .map_err(|error| format!("{} could not be removed: {error}", partial.display()))?;
    }
    fill(&create_directory(&partial)?)?;
    fs::rename(&partial, directory)
        .map_err(|error| format!("{} could not be renamed: {error}", partial.display()))
}

fn name(command: &Command) -> String {
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    if line.len() < 200 { line } else { command.get_program().to_string_lossy().into_owned() }
}
