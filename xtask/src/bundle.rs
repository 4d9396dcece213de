//! `cargo xtask bundle`: the suite and the benches as executables to carry to another machine.

use std::path::{Path, PathBuf};

use crate::cargo_command;

/// The suite with its goldens stays below this.
const MOST_BYTES: u64 = 40_000_000;

const SUITE: &str = "hydralora-conformance";
const BENCHES: &str = "hydralora-benches";
const ROOFLINE: &str = "hydralora-roofline";

/// Builds all, stripped, into `target/bundle`.
pub(crate) fn run(root: &Path) -> Result<(), String> {
    let folder = root.join("target/bundle");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let suite = ["test", "--release", "--test", "conformance"];
    let benches = ["bench", "--bench", "kernels"];
    let roofline = ["bench", "--bench", "roofline"];
    for (name, arguments) in [(SUITE, &suite[..]), (BENCHES, &benches), (ROOFLINE, &roofline)] {
        let built = build(arguments)?;
        let file = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
        std::fs::copy(&built, &file).map_err(|error| format!("{}: {error}", file.display()))?;
        let bytes = file.metadata().map_err(|error| format!("{}: {error}", file.display()))?.len();
        println!("{}: {:.1} MB", file.display(), bytes as f64 / 1e6);
        if name == SUITE && bytes > MOST_BYTES {
            return Err(format!("{name} has {bytes} bytes, more than {MOST_BYTES}"));
        }
    }
    println!(
        "On the other machine: {SUITE} [--adapter NAME] [--list] [--json FILE]; {BENCHES} --bench; \
         {ROOFLINE} --out FOLDER, and here `cargo xtask roofline --from FOLDER`"
    );
    Ok(())
}

/// The executable that cargo builds.
fn build(arguments: &[&str]) -> Result<PathBuf, String> {
    let mut command = cargo_command(arguments);
    for profile in ["release", "bench"] {
        command.args(["--config", &format!("profile.{profile}.strip=true")]);
    }
    crate::executable(command)
}
