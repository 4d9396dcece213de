//! The suite as a program.

use std::process::ExitCode;

use clap::Parser as _;
use hydralora_conformance::Options;

fn main() -> ExitCode {
    hydralora_conformance::run(Options::parse())
}
