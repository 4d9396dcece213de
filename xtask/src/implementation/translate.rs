//! Compilers of what naga writes, for drivers that no machine here has: SPIR-V, HLSL and GLSL.

use std::fmt::{self, Display, Formatter};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::hlsl::{self, Hlsl};
use super::{command, debian, spirv};

const FXC: &str = "FXC";

/// What every tool said about a folder of shaders.
#[derive(Debug)]
pub(crate) struct TranslateReport {
    pub tools: Vec<Tool>,
}

#[derive(Debug)]
pub(crate) struct Tool {
    pub name: &'static str,
    /// Whether it may be missing: what runs under Wine.
    pub optional: bool,
    /// Or why the tool is not available.
    pub result: Result<Checked, String>,
}

#[derive(Debug)]
pub(crate) struct Checked {
    pub version: String,
    pub files: usize,
    /// Files with nothing but a known fault.
    pub known: usize,
    pub failures: Vec<Failure>,
    pub time: Duration,
}

/// A file that a tool refuses.
#[derive(Debug)]
pub(crate) struct Failure {
    pub file: String,
    pub message: String,
}

/// Checks every `.spv`, `.hlsl` and `.comp` in the folder `shaders` with every tool for it. The tools
/// are fetched into `directory`; one that cannot be is reported, and is no error. If it shall be quick, FXC gets
/// every sixth file.
pub(crate) fn translate(directory: &Path, shaders: &Path, quick: bool) -> Result<TranslateReport, String> {
    debian::require()?;
    let directory = &command::create_directory(directory)?;
    let canaries = command::create_directory(&directory.join("canaries"))?;
    let wine = Hlsl::provide(directory);
    let hlsl = |library| wine.as_ref().map_err(String::clone)?.compiler(library);
    let tools = [
        ("spirv-val", "spv", spirv::validator(directory)),
        ("glslangValidator", "comp", glslang(directory)),
        ("DXC", "hlsl", hlsl(&hlsl::DXC)),
        (FXC, "hlsl", hlsl(&hlsl::FXC)),
    ];
    let run = |(name, extension, compiler): (_, _, Result<Compiler, String>)| {
        let mut files = files(shaders, extension)?;
        if name == FXC {
            // It knows no shader model with subgroup operations or integers of 64 bits, and wgpu offers neither where
            // it compiles.
            files.retain(|file| !["_subgroups_", "_wide_"].iter().any(|kind| file_name(file).contains(kind)));
            files = files.into_iter().step_by(if quick { 6 } else { 1 }).collect();
        }
        if files.is_empty() {
            return Err(format!("The folder {} has no .{extension} to check.", shaders.display()));
        }
        let canary = canaries.join("canary").with_extension(extension);
        command::write(&canary, "This is no shader.")?;
        let result = compiler.and_then(|compiler| check(&compiler, &files, canary));
        Ok(Tool { name, optional: extension == "hlsl", result })
    };
    Ok(TranslateReport { tools: tools.into_iter().map(run).collect::<Result<_, String>>()? })
}

impl TranslateReport {
    /// Whether no tool refused a file, and all that need no Wine were there.
    pub(crate) fn passed(&self) -> bool {
        self.tools.iter().all(|tool| match &tool.result {
            Ok(checked) => checked.failures.is_empty(),
            Err(_) => tool.optional,
        })
    }
}

impl Display for TranslateReport {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        for Tool { name, result, .. } in &self.tools {
            match result {
                Err(reason) => writeln!(formatter, "{name}: not available: {reason}")?,
                Ok(Checked { version, files, known, failures, time }) => {
                    let (refused, seconds) = (failures.len(), time.as_secs());
                    write!(formatter, "{name} {version}: {files} files in {seconds} s, {refused} refused")?;
                    if *known > 0 {
                        write!(formatter, ", {known} with a known fault alone")?;
                    }
                    writeln!(formatter)?;
                    for Failure { file, message } in failures {
                        // The first error tends to cause the rest.
                        let lines: Vec<_> = message.lines().take(5).collect();
                        writeln!(formatter, "  {file}: {}", lines.join("\n    "))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a tool says of a file.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    Accepted,
    /// Refused, but accepted without a fault of naga's that is known.
    Known,
    Refused(String),
}

/// Judges each of some files, in their order.
pub(super) type Check<'a> = Box<dyn Fn(&[PathBuf]) -> Result<Vec<Verdict>, String> + Sync + 'a>;

pub(super) struct Compiler<'a> {
    pub version: String,
    pub check: Check<'a>,
}

/// Checks the files in as many threads as there are processors, and that the compiler refuses `canary`.
fn check(compiler: &Compiler, files: &[PathBuf], canary: PathBuf) -> Result<Checked, String> {
    let Compiler { version, check } = compiler;
    if !matches!(check(&[canary])?[..], [Verdict::Refused(_)]) {
        let message = "the tool accepts a file that is no shader".to_owned();
        let failures = vec![Failure { file: "the canary".to_owned(), message }];
        return Ok(Checked { version: version.clone(), files: 1, known: 0, failures, time: Duration::ZERO });
    }
    let begin = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    // Neighbours are alike and take alike long, so they are dealt out like cards.
    let hands: Vec<Vec<PathBuf>> =
        (0..threads).map(|first| files.iter().skip(first).step_by(threads).cloned().collect()).collect();
    let verdicts = std::thread::scope(|scope| {
        let threads: Vec<_> = hands.iter().map(|hand| scope.spawn(|| check(hand))).collect();
        let results =
            threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?);
        results.collect::<Result<Vec<_>, String>>()
    })?;
    let (mut known, mut failures) = (0, Vec::new());
    for (path, verdict) in hands.iter().flatten().zip(verdicts.into_iter().flatten()) {
        match verdict {
            Verdict::Accepted => {}
            Verdict::Known => known += 1,
            Verdict::Refused(message) => failures.push(Failure { file: file_name(path), message }),
        }
    }
    failures.sort_by(|one, other| one.file.cmp(&other.file));
    Ok(Checked { version: version.clone(), files: files.len(), known, failures, time: begin.elapsed() })
}

fn glslang(directory: &Path) -> Result<Compiler<'static>, String> {
    let package = debian::unpack("glslang-tools", directory)?;
    let program = package.root.join("usr/bin/glslangValidator");
    // Once for every file.
    let check = move |file: &PathBuf| {
        // To SPIR-V 1.3, without which it knows no subgroup operations. wgpu assigns the bindings.
        let arguments = ["-G", "--target-env", "spirv1.3", "--auto-map-bindings", "-o", "/dev/null"];
        let output = Command::new(&program).args(arguments).arg(file).output();
        let output = output.map_err(|error| format!("{} could not be run: {error}", program.display()))?;
        Ok(if output.status.success() { Verdict::Accepted } else { Verdict::Refused(command::said(&output)) })
    };
    Ok(Compiler {
        version: package.version,
        check: Box::new(move |files| files.iter().map(&check).collect()),
    })
}

/// The files of a folder with an extension, sorted.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error| format!("The folder {} could not be read: {error}", folder.display());
    let folder = folder.canonicalize().map_err(unreadable)?;
    let entries = fs::read_dir(&folder).map_err(unreadable)?;
    let paths = entries.filter_map(Result::ok).map(|entry| entry.path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == extension)).collect();
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
