//! `cargo xtask web`: the pages for browsers, built into `target/web`, served on this machine, and checked in headless
//! Chromium.

mod browser;
mod build;
mod checks;
mod hands;
pub(crate) mod npm;
mod server;
mod tools;
mod troubles;

use std::path::Path;

use clap::Args;

use crate::run_visibly;
use server::Server;

#[derive(Args)]
pub(crate) struct Options {
    /// Run every page's check in headless Chromium, instead of serving until stopped. Installs Chromium on Debian.
    #[arg(long)]
    check: bool,
    /// Only checks whose name contains this
    #[arg(long, value_name = "TEXT", default_value = "", requires = "check")]
    only: String,
    /// The port to serve on; 0 takes any that is free
    #[arg(long, default_value_t = 8080)]
    port: u16,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<(), String> {
    let site = build::run(root)?;
    if options.check {
        npm::prepare_check(root, &site)?;
        let server = Server::start(&site, 0)?;
        checks::run(root, &site, server.address(), &options.only)?;
        return if options.only.is_empty() { lint(root) } else { Ok(()) };
    }
    let server = Server::start(&site, options.port)?;
    println!("http://{}/ until this is stopped", server.address());
    server.wait();
    Ok(())
}

/// What is compiled for browsers, with and without the library's feature, has no warning there.
fn lint(root: &Path) -> Result<(), String> {
    for package in [
        &["--package", "hydralora", "--lib", "--no-default-features"][..],
        &["--package", "hydralora", "--lib", "--no-default-features", "--features", "checkpoint"],
        &["--package", "hydralora-web"],
    ] {
        let mut clippy = tools::cargo(root, "clippy", package)?;
        run_visibly(clippy.args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}
