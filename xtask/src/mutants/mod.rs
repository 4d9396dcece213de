//! Proof that the conformance suite can fail. Each defect is put into a copy of the shaders, which a suite built
//! for this reads as it runs, and the suite must go red.

mod defects;

use std::env::consts::EXE_EXTENSION;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use defects::{DEFECTS, Defect};

use crate::cargo_on;
use crate::conformance::SUITE;

/// A suite that runs longer than this with a defect hangs.
const PATIENCE: Duration = Duration::from_mins(20);

enum Verdict {
    /// The suite's first failure.
    Killed(String),
    Hangs,
    Survives,
}

/// Tries every defect whose name or file contains one of `filters`, or all without any, and prints the kill table. Fails
/// unless the listed survivors survive and all other defects are killed.
pub(crate) fn run(root: &Path, filters: &[String], suite_options: &[OsString]) -> Result<(), String> {
    let named = |defect: &&Defect| {
        let contains = |filter: &String| [defect.name, defect.file].iter().any(|text| text.contains(filter));
        filters.is_empty() || filters.iter().any(contains)
    };
    let selected: Vec<&Defect> = DEFECTS.iter().filter(named).collect();
    if selected.is_empty() {
        return Err(format!("no defect's name or file contains any of {filters:?}"));
    }
    let tree = root.join("target/mutants");
    let _ = std::fs::remove_dir_all(&tree);
    copy(root, &tree)?;
    // A separate target folder, so that the real build keeps its artifacts.
    let target = root.join("target/mutants-build");
    let build = Build::new(tree, target)?;

    println!("the suite without a defect");
    match build.suite("", suite_options)? {
        Verdict::Survives => {}
        Verdict::Killed(failure) => return Err(format!("the suite fails without any defect: {failure}")),
        Verdict::Hangs => return Err(format!("the suite takes over {PATIENCE:?} without any defect")),
    }
    let mut rows = Vec::new();
    let mut wrong = 0;
    for defect in &selected {
        let begin = Instant::now();
        let verdict = build.with(defect, suite_options)?;
        let (text, as_it_should) = match (verdict, defect.survives) {
            (Verdict::Killed(failure), None) => (format!("killed by {failure}"), true),
            (Verdict::Hangs, None) => ("killed: the suite hangs".to_owned(), true),
            (Verdict::Killed(failure), Some(_)) => {
                (format!("killed by {failure} (listed as a survivor)"), true)
            }
            (Verdict::Survives, Some(reason)) => (format!("survives: {reason}"), true),
            (Verdict::Survives, None) => ("SURVIVES".to_owned(), false),
            (Verdict::Hangs, Some(_)) => ("hangs (listed as a survivor)".to_owned(), false),
        };
        wrong += usize::from(!as_it_should);
        let row = format!("| {:<40} | {:<31} | {text} |", defect.name, defect.file);
        println!("{row} {:.0} s", begin.elapsed().as_secs_f64());
        rows.push(row);
    }
    println!(
        "\n| {:<40} | {:<31} | verdict |\n|{}|{}|---|",
        "defect",
        "shaders/",
        "-".repeat(42),
        "-".repeat(33)
    );
    println!("{}", rows.join("\n"));
    let killed = rows.iter().filter(|row| row.contains("| killed")).count();
    println!("\n{killed} of {} defects killed", rows.len());
    if wrong == 0 { Ok(()) } else { Err(format!("{wrong} defects did not end as expected")) }
}

/// A copy of the sources, and its target folder with a suite that reads the copy's shaders.
struct Build {
    tree: PathBuf,
    target: PathBuf,
}

impl Build {
    fn new(tree: PathBuf, target: PathBuf) -> Result<Self, String> {
        let mut cargo =
            cargo_on(&tree.join("Cargo.toml"), &["build", "--quiet", "--release", "--package", SUITE]);
        cargo.env("RUSTFLAGS", "--cfg hydralora_mutants").arg("--target-dir").arg(&target);
        match cargo.status().map_err(|error| format!("cargo could not be run: {error}"))? {
            status if status.success() => Ok(Self { tree, target }),
            status => Err(format!("the build failed ({status})")),
        }
    }

    /// The suite's verdict on one defect. Afterwards the shader is as it was.
    fn with(&self, defect: &Defect, suite_options: &[OsString]) -> Result<Verdict, String> {
        let file = self.tree.join("shaders").join(defect.file);
        let failed = |error: std::io::Error| format!("{}: {error}", file.display());
        let whole = std::fs::read_to_string(&file).map_err(failed)?;
        let count = whole.matches(defect.find).count();
        if count != 1 {
            return Err(format!("{}: its text is {count} times in {}, not once", defect.name, defect.file));
        }
        std::fs::write(&file, whole.replace(defect.find, defect.replace)).map_err(failed)?;
        let verdict = self.suite(defect.trials(), suite_options);
        std::fs::write(&file, whole).map_err(failed)?;
        match verdict {
            Ok(Verdict::Killed(failure)) if failure.contains("while compiling") => {
                Err(format!("{}: this is no defect but invalid WGSL: {failure}", defect.name))
            }
            verdict => verdict,
        }
    }

    /// Runs the suite. Trials whose names contain `first` run before all others.
    fn suite(&self, first: &str, suite_options: &[OsString]) -> Result<Verdict, String> {
        // Run it without cargo, because killing cargo would leave a hanging suite running.
        let executable = self.target.join("release").join(SUITE).with_extension(EXE_EXTENSION);
        let mut command = Command::new(executable);
        command
            .current_dir(&self.tree)
            .args(["--quiet", "--fail-fast", "--first", first, "--out"])
            .arg(self.target.join("reports"));
        // With this, Mesa's software drivers have subgroups of four, which show missing barriers that eight
        // lanes hide. A separate shader cache keeps them from using shaders compiled without it.
        command.env("LP_NATIVE_VECTOR_WIDTH", "128");
        command.env("MESA_SHADER_CACHE_DIR", self.target.join("shader-cache"));
        command.args(suite_options);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("the suite could not be run: {error}"))?;
        let mut stdout = child.stdout.take().ok_or("the suite has no output")?;
        let reader = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stdout.read_to_string(&mut text);
            text
        });
        let begin = Instant::now();
        let status = loop {
            match child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => break status,
                None if begin.elapsed() > PATIENCE => {
                    let _ = child.kill();
                    let _ = child.wait();
                    return Ok(Verdict::Hangs);
                }
                None => std::thread::sleep(Duration::from_millis(100)),
            }
        };
        let output = reader.join().unwrap_or_default();
        if status.success() {
            return Ok(Verdict::Survives);
        }
        let failure = output.lines().find_map(|line| line.split_once("first failure: "));
        failure
            .map(|(_, failure)| Verdict::Killed(failure.to_owned()))
            .ok_or_else(|| format!("the suite ended with {status}, but named no failure:\n{output}"))
    }
}

/// Copies everything but what cargo has built and what is hidden.
fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", from.display());
    if from.is_dir() {
        std::fs::create_dir_all(to).map_err(failed)?;
        for entry in std::fs::read_dir(from).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            if name != "target" && !name.as_encoded_bytes().starts_with(b".") {
                copy(&from.join(&name), &to.join(&name))?;
            }
        }
        return Ok(());
    }
    std::fs::copy(from, to).map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_defect_has_its_place() {
        let shaders = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shaders");
        let mut misplaced = Vec::new();
        for Defect { name, file, find, replace, .. } in DEFECTS {
            let text = std::fs::read_to_string(shaders.join(file)).unwrap_or_default();
            let places = text.matches(find).count();
            if places != 1 || find == replace {
                misplaced.push(format!("{name}: {find:?} is {places} times in {file}"));
            }
        }
        assert!(misplaced.is_empty(), "{}", misplaced.join("\n"));
    }
}
