//! Builds the site: the module, what wasm-bindgen writes for it, and the static files.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{npm, tools};
use crate::implementation::{create_directory, output};
use crate::{cargo_command, run_visibly};

const PACKAGE: &str = "hydralora-web";
/// The module's name without its ending.
const MODULE: &str = "hydralora_web";
/// The most bytes of the module when compressed.
const MOST_BYTES: u64 = 1_500_000;

/// Files that pages load beside those of `web/pages`, and where they come from.
const DATA: [(&str, &str); 1] = [("target/npm/src", "npm")];

/// Builds all pages into `target/web`, and returns that.
pub(super) fn run(root: &Path) -> Result<PathBuf, String> {
    tools::target()?;
    let bindgen = tools::bindgen(root)?;
    let target = root.join("target");
    let build = ["build", "--package", PACKAGE, "--profile", "web", "--target", tools::TARGET];
    run_visibly(cargo_command(&build).arg("--target-dir").arg(&target))?;

    let site = target.join("web");
    if site.exists() {
        std::fs::remove_dir_all(&site).map_err(|error| format!("{}: {error}", site.display()))?;
    }
    let site = create_directory(&site)?;
    let built = target.join(tools::TARGET).join("web").join(MODULE).with_extension("wasm");
    let mut bind = Command::new(bindgen);
    bind.args(["--target", "web", "--no-typescript", "--out-dir"]).arg(&site).arg(built);
    output(&mut bind)?;
    let module = site.join(format!("{MODULE}_bg.wasm"));
    tools::optimise(&module)?;
    copy(&root.join("web/pages"), &site)?;
    npm::build(root)?;
    for (from, to) in DATA {
        copy(&root.join(from), &site.join(to))?;
    }
    sizes(&site, &module)?;
    Ok(site)
}

/// Copies a file, or a folder with all that is in it.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), String> {
    if !from.is_dir() {
        let copied = std::fs::copy(from, to).map(drop);
        return copied.map_err(|error| format!("{} to {}: {error}", from.display(), to.display()));
    }
    create_directory(to)?;
    for entry in std::fs::read_dir(from).map_err(|error| format!("{}: {error}", from.display()))? {
        let entry = entry.map_err(|error| format!("{}: {error}", from.display()))?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Prints the module's sizes and those of all files, and refuses a module that is too large.
fn sizes(site: &Path, module: &Path) -> Result<(), String> {
    let size = |path: &Path| std::fs::metadata(path).map(|file| file.len()).map_err(|error| error.to_string());
    let bytes = size(module)?;
    let kilobytes = bytes as f64 / 1e3;
    match compressed(module) {
        Some(packed) => {
            println!("{}: the module has {kilobytes:.0} kB, {:.0} kB compressed", site.display(), packed as f64 / 1e3);
            if packed > MOST_BYTES {
                return Err(format!("compressed, the module has {packed} bytes, more than {MOST_BYTES}"));
            }
        }
        None => println!("{}: the module has {kilobytes:.0} kB", site.display()),
    }
    Ok(())
}

/// Bytes as a server sends them, if there is gzip to tell.
pub(super) fn compressed(file: &Path) -> Option<u64> {
    let output = Command::new("gzip").args(["--best", "--stdout"]).arg(file).output().ok()?;
    output.status.success().then_some(output.stdout.len() as u64)
}
