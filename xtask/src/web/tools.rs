//! What building for browsers takes: Rust's target, wasm-bindgen and, where there is one, wasm-opt.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::implementation::{output, succeeds};
use crate::run_visibly;

pub(super) const TARGET: &str = "wasm32-unknown-unknown";

/// Adds Rust's target, if it is missing.
pub(super) fn target() -> Result<(), String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let folder = output(Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]))?;
    if Path::new(&folder).is_dir() {
        return Ok(());
    }
    if succeeds("rustup", &["--version"]) {
        return run_visibly(Command::new("rustup").args(["target", "add", TARGET]));
    }
    Err(format!(
        "This Rust has no standard library for {TARGET}. Install it as you installed Rust, such as with rustup \
         (`rustup target add {TARGET}`); on Debian `apt-get install libstd-rust-dev-wasm32`, and for a newer Rust \
         `apt-get install rustc-web cargo-web rust-web-src`, whose source builds it:\n    \
         RUSTC_BOOTSTRAP=1 cargo build -Zbuild-std=std,panic_abort --target {TARGET} --profile wasm --package hydralora-web"
    ))
}

/// wasm-bindgen's program of exactly the version in Cargo.lock, which its library demands.
pub(super) fn bindgen(root: &Path) -> Result<PathBuf, String> {
    let lock = root.join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    let version = locked(&lock, "wasm-bindgen").ok_or("Cargo.lock has no wasm-bindgen")?;
    let tools = root.join("target/tools");
    let program = tools.join("bin/wasm-bindgen").with_extension(std::env::consts::EXE_EXTENSION);
    let there = output(Command::new(&program).arg("--version"));
    if there.is_ok_and(|said| said.split_whitespace().nth(1) == Some(version)) {
        return Ok(program);
    }
    eprintln!("Building wasm-bindgen {version} (a minute or two, once)");
    // Without --locked: it names versions that a registry may not have. And --debug: it has seconds of work, and optimising it
    // would take minutes.
    let mut install = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    install
        .args(["install", "--quiet", "--debug", "wasm-bindgen-cli", "--version", version, "--root"])
        .arg(&tools);
    run_visibly(&mut install)?;
    Ok(program)
}

/// The version of a package in a lock file.
pub(super) fn locked<'a>(lock: &'a str, package: &str) -> Option<&'a str> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')
}

/// Makes what cargo built smaller where wasm-opt is installed, as Debian's binaryen has it, and returns the smaller one.
/// Before wasm-bindgen, because older versions of wasm-opt confuse the tables of references that it adds.
pub(super) fn optimise(built: &Path) -> Result<PathBuf, String> {
    if !succeeds("wasm-opt", &["--version"]) {
        eprintln!("Without wasm-opt, which would make the pages a little smaller: apt-get install binaryen");
        return Ok(built.to_owned());
    }
    let smaller = built.with_extension("opt.wasm");
    // What Rust's target has by default.
    let features = [
        "--enable-bulk-memory",
        "--enable-nontrapping-float-to-int",
        "--enable-sign-ext",
        "--enable-mutable-globals",
        "--enable-reference-types",
        "--enable-multivalue",
    ];
    output(Command::new("wasm-opt").arg("-Os").args(features).arg(built).arg("-o").arg(&smaller))?;
    Ok(smaller)
}

#[cfg(test)]
mod tests {
    use super::locked;

    #[test]
    fn a_lock_file_says_which_version() {
        let lock = "[[package]]\nname = \"a-b\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"a\"\nversion = \"2.3.4\"\n";
        assert_eq!(locked(lock, "a"), Some("2.3.4"));
        assert_eq!(locked(lock, "a-b"), Some("0.1.0"));
        assert_eq!(locked(lock, "b"), None);
    }
}
