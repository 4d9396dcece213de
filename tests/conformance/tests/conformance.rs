//! The suite as a test of cargo's.

use std::process::ExitCode;

use clap::Parser as _;
use hydralora_conformance::Options;

fn main() -> ExitCode {
    // Cargo runs it in the package's folder, and files in options are meant from the project's.
    let project = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");
    if let Err(error) = std::env::set_current_dir(project) {
        eprintln!("{project}: {error}");
        return ExitCode::FAILURE;
    }
    hydralora_conformance::run(Options::parse())
}
