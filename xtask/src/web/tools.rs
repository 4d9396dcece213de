//! What building for browsers takes: Rust's target, wasm-bindgen and, where there is one, wasm-opt.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::implementation::{install, output, succeeds};
use crate::{cargo_command, run_visibly};

const TARGET: &str = "wasm32-unknown-unknown";

/// Builds a package for browsers with one of cargo's profiles, and returns the folder of its module.
pub(super) fn build(root: &Path, package: &str, profile: &str) -> Result<PathBuf, String> {
    run_visibly(&mut cargo(root, "build", &["--package", package, "--profile", profile])?)?;
    Ok(root.join("target").join(TARGET).join(profile))
}

/// One of cargo's commands for browsers, on what cargo compiles of the standard library if it has to.
pub(super) fn cargo(root: &Path, subcommand: &str, arguments: &[&str]) -> Result<Command, String> {
    let mut cargo = cargo_command(&[subcommand, "--target", TARGET]);
    cargo.arg("--target-dir").arg(root.join("target"));
    if standard_library()? == Library::Source {
        cargo.arg("-Zbuild-std=std,panic_abort").env("RUSTC_BOOTSTRAP", "1");
    }
    cargo.args(arguments);
    Ok(cargo)
}

/// How there is a standard library for the target.
#[derive(PartialEq, Eq)]
enum Library {
    Compiled,
    /// Cargo compiles it.
    Source,
}

/// Sees to it that there is a standard library: rustup has it compiled. Debian's Rust has its source.
fn standard_library() -> Result<Library, String> {
    let rustc = |arguments: &[&str]| {
        output(Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into())).args(arguments))
    };
    if Path::new(&rustc(&["--print", "target-libdir", "--target", TARGET])?).is_dir() {
        return Ok(Library::Compiled);
    }
    if succeeds("rustup", &["--version"]) {
        run_visibly(Command::new("rustup").args(["target", "add", TARGET]))?;
        return Ok(Library::Compiled);
    }
    let source = Path::new(&rustc(&["--print", "sysroot"])?).join("lib/rustlib/src/rust/library/Cargo.lock");
    if !source.is_file() || !succeeds("rust-lld", &["-flavor", "wasm", "--version"]) {
        let verbose = rustc(&["--version", "--verbose"])?;
        let linker = llvm(&verbose).map_or_else(|| "lld".to_owned(), |major| format!("lld-{major}"));
        let installed = install(&["rust-web-src", "rust-web-llvm", &linker]);
        installed.map_err(|error| {
            format!(
                "This Rust has no standard library for {TARGET}. Add it as you installed Rust, such as with \
                 `rustup target add {TARGET}`. {error}"
            )
        })?;
    }
    Ok(Library::Source)
}

/// The major version of the LLVM that a Rust has, whose linker it wants.
fn llvm(verbose: &str) -> Option<&str> {
    verbose.lines().find_map(|line| line.strip_prefix("LLVM version: "))?.split('.').next()
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
    use super::{llvm, locked};

    #[test]
    fn a_rust_says_which_llvm_it_has() {
        let verbose =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nhost: x86_64-unknown-linux-gnu\nLLVM version: 22.1.8\n";
        assert_eq!(llvm(verbose), Some("22"));
        assert_eq!(llvm("rustc 1.96.0\n"), None);
    }

    #[test]
    fn a_lock_file_says_which_version() {
        let lock = "[[package]]\nname = \"a-b\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"a\"\nversion = \"2.3.4\"\n";
        assert_eq!(locked(lock, "a"), Some("2.3.4"));
        assert_eq!(locked(lock, "a-b"), Some("0.1.0"));
        assert_eq!(locked(lock, "b"), None);
    }
}
