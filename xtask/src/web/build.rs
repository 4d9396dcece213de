//! Builds the site: the module, what wasm-bindgen writes for it, and the static files.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;

use super::{npm, tools};
use crate::implementation::{create_directory, output};

const PACKAGE: &str = "hydralora-web";
/// Cargo's profile for it.
const PROFILE: &str = "wasm";
/// The module's name without its ending.
const MODULE: &str = "hydralora_web";

/// Where files come from that pages load beside those of `web/pages`, and their names. A folder becomes one file, its
/// files joined in the order of their names, as the demo reads it.
const DATA: [(&str, &str); 5] = [
    ("examples/finetune/data/base.safetensors", "data/base.safetensors"),
    ("examples/finetune/data/corpora/prose.txt", "data/prose.txt"),
    ("examples/finetune/data/corpora/code.c", "data/code.c"),
    ("examples/finetune/data/corpora/legal", "data/legal"),
    ("examples/finetune/data/corpora/tables.zi", "data/tables.zi"),
];

/// Builds all pages into `target/web`, and returns that.
pub(super) fn run(root: &Path) -> Result<PathBuf, String> {
    let bindgen = tools::bindgen(root)?;
    let built = tools::build(root, PACKAGE, PROFILE)?.join(MODULE).with_extension("wasm");
    let site = root.join("target/web");
    if site.exists() {
        std::fs::remove_dir_all(&site).map_err(|error| format!("{}: {error}", site.display()))?;
    }
    let site = create_directory(&site)?;
    let mut bind = Command::new(bindgen);
    bind.args(["--target", "web", "--no-typescript", "--out-name", MODULE, "--out-dir"]).arg(&site);
    output(bind.arg(tools::optimise(&built)?))?;
    copy(&root.join("web/pages"), &site)?;
    copy(&npm::build(root)?.join("src"), &site.join("npm"))?;
    for (from, to) in DATA {
        let to = site.join(to);
        create_directory(to.parent().unwrap_or(&site))?;
        std::fs::write(&to, joined(&root.join(from))?)
            .map_err(|error| format!("{}: {error}", to.display()))?;
    }
    goldens(&root.join("tests/conformance/goldens"), &site.join("goldens"))?;
    Ok(site)
}

/// Copies the conformance suite's goldens, and a list of their names.
fn goldens(from: &Path, to: &Path) -> Result<(), String> {
    create_directory(to)?;
    let entries = std::fs::read_dir(from).map_err(|error| format!("{}: {error}", from.display()))?;
    let mut names = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if let (Some(name), Some("safetensors")) =
            (path.file_stem(), path.extension().and_then(OsStr::to_str))
        {
            names.push(name.to_string_lossy().into_owned());
            copy(&path, &to.join(path.file_name().unwrap_or_default()))?;
        }
    }
    names.sort();
    let index = to.join("index.json");
    std::fs::write(&index, json!(names).to_string()).map_err(|error| format!("{}: {error}", index.display()))
}

/// A file, or all files of a folder, joined in the order of their names.
fn joined(path: &Path) -> Result<Vec<u8>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if !path.is_dir() {
        return std::fs::read(path).map_err(failed);
    }
    let entries = std::fs::read_dir(path).map_err(failed)?.collect::<Result<Vec<_>, _>>();
    let mut files: Vec<PathBuf> = entries.map_err(failed)?.iter().map(std::fs::DirEntry::path).collect();
    files.sort();
    Ok(files.iter().map(|file| joined(file)).collect::<Result<Vec<_>, _>>()?.concat())
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

/// Bytes as a server sends them, if there is gzip to tell.
pub(super) fn compressed(file: &Path) -> Option<u64> {
    let output = Command::new("gzip").args(["--best", "--stdout"]).arg(file).output().ok()?;
    output.status.success().then_some(output.stdout.len() as u64)
}
