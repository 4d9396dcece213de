//! `cargo xtask npm`: the npm package, built into `target/npm`, and tested in Node on Dawn.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::{Value, json};

use super::{build, tools};
use crate::implementation::npm::{TYPESCRIPT, WEBGPU};
use crate::implementation::{create_directory, output, provide, write};
use crate::{cargo_command, run_visibly};

/// The package that plans, its module, and cargo's profile for it.
const PACKAGE: &str = "hydralora-npm";
const MODULE: &str = "hydralora_npm.wasm";
const PROFILE: &str = "small";
/// The most bytes of the planner when compressed.
const MOST_BYTES: u64 = 300_000;

#[derive(Args)]
pub(crate) struct Options {
    /// Also run the package's tests, in Node on Dawn's WebGPU with a software driver
    #[arg(long)]
    check: bool,
}

pub(crate) fn run(root: &Path, options: &Options) -> Result<(), String> {
    let package = build(root)?;
    sizes(&package)?;
    if options.check { check(root, &package) } else { Ok(()) }
}

/// Builds the package, and returns its folder.
pub(super) fn build(root: &Path) -> Result<PathBuf, String> {
    let bindgen = tools::bindgen(root)?;
    let built = tools::build(root, PACKAGE, PROFILE)?;
    let target = root.join("target");
    let package = target.join("npm");
    if package.exists() {
        std::fs::remove_dir_all(&package).map_err(|error| format!("{}: {error}", package.display()))?;
    }
    let package = create_directory(&package)?;
    let source = package.join("src");
    build::copy(&root.join("npm/src"), &source)?;
    build::copy(&root.join("npm/README.md"), &package.join("README.md"))?;
    for license in ["LICENSE-APACHE", "LICENSE-MIT"] {
        build::copy(&root.join(license), &package.join(license))?;
    }
    write(&package.join("package.json"), manifest(root)?)?;

    // Without wasm-opt, which saves less than 1 % here, so that the package has the same bytes whoever builds it.
    let mut bind = Command::new(bindgen);
    bind.args(["--target", "web", "--out-name", "planner", "--out-dir"]).arg(&source);
    output(bind.arg(built.join(MODULE)))?;
    types(&target.join("implementations"), &source)?;
    Ok(package)
}

/// The manifest, with the library's version.
fn manifest(root: &Path) -> Result<String, String> {
    let read = |name: &str| {
        let path = root.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut manifest: Value = serde_json::from_str(&read("npm/package.json")?)
        .map_err(|error| format!("npm/package.json: {error}"))?;
    let lock = read("Cargo.lock")?;
    manifest["version"] = json!(tools::locked(&lock, "hydralora").ok_or("Cargo.lock has no hydralora")?);
    Ok(format!("{manifest:#}\n"))
}

/// Checks the types of the sources, and writes declarations beside them.
fn types(implementations: &Path, source: &Path) -> Result<(), String> {
    let modules = TYPESCRIPT.install(implementations)?;
    // WebGPU's types come with Dawn.
    let globals = WEBGPU.install(implementations)?;
    let mut tsc = Command::new("node");
    tsc.arg(modules.join("typescript/bin/tsc")).arg(source.join("index.js"));
    tsc.args(["--allowJs", "--checkJs", "--strict", "--declaration", "--emitDeclarationOnly"]);
    tsc.args(["--module", "nodenext", "--target", "es2022", "--lib", "esnext,dom"]);
    tsc.arg("--typeRoots").arg(globals).args(["--types", "@webgpu/types"]);
    output(&mut tsc).map(drop)
}

/// Prints the package's sizes, and refuses a planner that is too large.
fn sizes(package: &Path) -> Result<(), String> {
    let pack = ["pack", "--dry-run", "--json"];
    let packed = output(Command::new("npm").args(pack).current_dir(package))?;
    let packed: Value = serde_json::from_str(&packed).map_err(|error| format!("npm pack: {error}"))?;
    let kilobytes = |bytes: f64| format!("{:.0} kB", bytes / 1e3);
    let of = |key: &str| packed[0][key].as_f64().map_or_else(|| "?".to_owned(), kilobytes);
    println!("{}: {} packed, {} unpacked", package.display(), of("size"), of("unpackedSize"));
    let Some(planner) = build::compressed(&package.join("src/planner_bg.wasm")) else { return Ok(()) };
    println!("the planner: {} compressed", kilobytes(planner as f64));
    if planner > MOST_BYTES {
        return Err(format!("compressed, the planner has {planner} bytes, more than {MOST_BYTES}"));
    }
    Ok(())
}

/// Adds to the site what the example page compares its numbers with.
pub(super) fn prepare_check(root: &Path, site: &Path) -> Result<(), String> {
    build::copy(&reference(root)?, &site.join("npm/reference.json"))?;
    build::copy(&root.join("npm/test/compare.js"), &site.join("npm/compare.js"))
}

/// What the package's numbers are compared with, written into a file.
fn reference(root: &Path) -> Result<PathBuf, String> {
    let example = ["run", "--quiet", "--release", "--example", "npm_reference"];
    let path = root.join("target/npm-reference.json");
    write(&path, output(&mut cargo_command(&example))?)?;
    Ok(path)
}

fn check(root: &Path, package: &Path) -> Result<(), String> {
    let reference = reference(root)?;
    let implementations = provide("dawn", &root.join("target/implementations"))?;
    for dawn in implementations {
        println!("Dawn {}", dawn.version);
        let mut node = Command::new("node");
        node.args(["--test", "--test-reporter", "spec"]).arg(root.join("npm/test/node.test.js"));
        node.envs(dawn.env).env("HYDRALORA_NPM", package).env("HYDRALORA_REFERENCE", &reference);
        run_visibly(&mut node)?;
    }
    Ok(())
}
