//! `cargo xtask bundle`: builds the suite, the benches and the language model as executables for another machine.

use std::env::consts::EXE_EXTENSION;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::conformance::SUITE;
use crate::{cargo, cargo_command};

/// The largest size of the suite with its goldens.
const MOST_BYTES: u64 = 40_000_000;

/// The benches' package, and the executable of `kernels`.
const BENCHES: &str = "hydralora-benches";
const ROOFLINE: &str = "hydralora-roofline";

/// The language model's package and executable.
const LLAMA: &str = "hydralora-llama";

/// What runs the executables and PyTorch one after the other, of `peers`.
const SCRIPTS: [&str; 3] = ["gpu.sh", "pytorch.py", "pytorch_llama.py"];

/// Builds all executables into `target/bundle`.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let target = root.join("target");
    let folder = target.join("bundle");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let messages = build(&target)?;
    // Alone, as `cargo xtask llm` builds it.
    cargo(&["build", "--release", "--package", LLAMA, "--target-dir"], &[target.clone().into()])?;
    for (name, built) in [
        (SUITE, target.join("release").join(SUITE).with_extension(EXE_EXTENSION)),
        (BENCHES, bench(&messages, "kernels")?),
        (ROOFLINE, bench(&messages, "roofline")?),
        (LLAMA, target.join("release").join(LLAMA).with_extension(EXE_EXTENSION)),
    ] {
        let file = folder.join(name).with_extension(EXE_EXTENSION);
        let bytes = std::fs::copy(&built, &file)
            .map_err(|error| format!("{} to {}: {error}", built.display(), file.display()))?;
        println!("{}: {:.1} MB", file.display(), bytes as f64 / 1e6);
        if name == SUITE && bytes > MOST_BYTES {
            return Err(format!("{name} has {bytes} bytes, more than {MOST_BYTES}"));
        }
    }
    for name in SCRIPTS {
        let file = folder.join(name);
        std::fs::copy(root.join("peers").join(name), &file)
            .map_err(|error| format!("peers/{name} to {}: {error}", file.display()))?;
        println!("{}", file.display());
    }
    println!(
        "On the other machine: ./gpu.sh FOLDER for all of it; or {SUITE} [--adapter NAME] [--list] [--json FILE]; {BENCHES} --bench; \
         {LLAMA} --shape smollm2-135m --profile; {ROOFLINE} --out FOLDER, and here `cargo xtask roofline --from FOLDER`"
    );
    Ok(())
}

/// Builds everything as other commands do, so that nothing is built twice. Returns cargo's messages.
fn build(target: &Path) -> Result<Vec<Value>, String> {
    let mut command = cargo_command(&["build", "--release", "--bin", SUITE]);
    command.args(["--bench", "kernels", "--bench", "roofline"]).arg("--target-dir").arg(target);
    command.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let output = command.output().map_err(|error| format!("cargo could not be run: {error}"))?;
    if !output.status.success() {
        return Err(format!("the build failed ({})", output.status));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The executable of a bench. Its name has a hash, so it is found in cargo's messages.
fn bench(messages: &[Value], name: &str) -> Result<PathBuf, String> {
    let found = messages.iter().filter(|message| message["target"]["name"] == name);
    let executable = found.filter_map(|message| message["executable"].as_str()).next_back();
    executable.map(PathBuf::from).ok_or_else(|| format!("the build gave no executable of {name}"))
}
