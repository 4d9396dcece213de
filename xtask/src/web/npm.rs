//! `cargo xtask npm`: the npm package, built into `target/npm`, and tested in Node on Dawn.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;
use serde_json::Value;

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

/// The manifest, with the library's version. Everything else keeps its place: of `exports`, programs take the first condition
/// that they meet.
fn manifest(root: &Path) -> Result<String, String> {
    let read = |name: &str| {
        let path = root.join(name);
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let lock = read("Cargo.lock")?;
    let version = tools::locked(&lock, "hydralora").ok_or("Cargo.lock has no hydralora")?;
    let manifest = read("npm/package.json")?;
    let (before, after) = manifest
        .split_once("\"version\": \"0.0.0\"")
        .ok_or("npm/package.json has no version 0.0.0 to take the library's")?;
    Ok(format!("{before}\"version\": \"{version}\"{after}"))
}

/// Checks the types of the sources, and writes declarations beside them.
fn types(implementations: &Path, source: &Path) -> Result<(), String> {
    let mut tsc = tsc(implementations)?;
    tsc.args(["--module", "nodenext", "--declaration", "--emitDeclarationOnly"]);
    output(tsc.arg(source.join("index.js"))).map(drop)
}

/// TypeScript's compiler, which knows WebGPU's types and checks JavaScript too.
fn tsc(implementations: &Path) -> Result<Command, String> {
    let modules = TYPESCRIPT.install(implementations)?;
    // WebGPU's types come with Dawn.
    let globals = WEBGPU.install(implementations)?;
    let mut tsc = Command::new("node");
    tsc.arg(modules.join("typescript/bin/tsc")).args(["--allowJs", "--checkJs", "--strict"]);
    tsc.args(["--target", "es2022", "--lib", "esnext,dom"]);
    tsc.arg("--typeRoots").arg(globals).args(["--types", "@webgpu/types"]);
    Ok(tsc)
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

/// Checks the package as its users have it: packed, installed into an empty folder, and imported by its name.
fn check(root: &Path, package: &Path) -> Result<(), String> {
    let implementations = root.join("target/implementations");
    let user = user(root, package)?;
    // As Node finds declarations, and as bundlers do.
    for (module, resolution) in [("nodenext", "nodenext"), ("esnext", "bundler")] {
        let mut tsc = tsc(&implementations)?;
        tsc.current_dir(&user).args(["--noEmit", "--module", module, "--moduleResolution", resolution]);
        output(tsc.args(["user.ts", "compare.js"]))?;
    }
    println!("its types check");
    let reference = reference(root)?;
    for dawn in provide("dawn", &implementations)? {
        println!("Dawn {}", dawn.version);
        let mut node = Command::new("node");
        node.args(["--test", "--test-reporter", "spec"]).arg(user.join("node.test.js"));
        node.envs(dawn.env).env("HYDRALORA_REFERENCE", &reference);
        run_visibly(&mut node)?;
    }
    Ok(())
}

/// A user of the package: a folder with the tests, and the packed package installed there. It depends on nothing, so
/// nothing is fetched.
fn user(root: &Path, package: &Path) -> Result<PathBuf, String> {
    let user = root.join("target/npm-check");
    if user.exists() {
        std::fs::remove_dir_all(&user).map_err(|error| format!("{}: {error}", user.display()))?;
    }
    let user = create_directory(&user)?;
    build::copy(&root.join("npm/test"), &user)?;
    write(&user.join("package.json"), "{ \"private\": true, \"type\": \"module\" }\n")?;
    let npm = |arguments: &[&str]| output(Command::new("npm").args(arguments).current_dir(&user));
    let packed = npm(&["pack", "--silent", &package.to_string_lossy()])?;
    npm(&["install", "--offline", "--no-audit", "--no-fund", &format!("./{packed}")])?;
    Ok(user)
}
