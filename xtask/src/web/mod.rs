//! `cargo xtask web`: the pages for browsers, built into `target/web`, served on this machine, and checked in headless
//! Chromium.

mod browser;
mod build;
mod checks;
pub(crate) mod npm;
mod server;
mod tools;
mod troubles;

use std::path::Path;

use clap::Args;

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
        return checks::run(root, server.address(), &options.only);
    }
    let server = Server::start(&site, options.port)?;
    println!("http://{}/ until this is stopped", server.address());
    server.wait();
    Ok(())
}
