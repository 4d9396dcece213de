//! The suite as a cargo test.

use std::process::ExitCode;

use clap::Parser as _;
use hydralora_conformance::Options;

fn main() -> ExitCode {
    // Cargo runs it in the package's folder, but paths in options are relative to the project's.
    let project = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    if let Err(error) = std::env::set_current_dir(project) {
        eprintln!("{project}: {error}");
        return ExitCode::FAILURE;
    }
    hydralora_conformance::run(Options::parse())
}
