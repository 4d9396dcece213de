//! NVIDIA's compilers for CUDA, from Python's package index. They need no GPU, and a C++ compiler only to
//! resolve `#include`.

use std::path::{Path, PathBuf};

use super::{command, debian, python};

const REQUIREMENTS: &str = include_str!("../../cuda.txt");

/// The folder of `nvcc`, `ptxas` and `nvdisasm`, and the version of all.
pub(super) fn provide(directory: &Path) -> Result<(PathBuf, String), String> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        return Err("NVIDIA's packages that are listed here are for Linux on x86-64.".to_owned());
    }
    if !command::succeeds("g++", &["--version"]) {
        let installed = debian::require().and_then(|()| debian::install(&["g++"]));
        installed.map_err(|error| format!("nvcc needs g++: {error}"))?;
    }
    let folder = python::install(REQUIREMENTS, directory)?;
    let (_, version) = REQUIREMENTS
        .lines()
        .next()
        .and_then(|line| line.split(' ').next())
        .and_then(|package| package.split_once("=="))
        .unwrap_or_default();
    Ok((folder.join("nvidia/cu13/bin"), version.to_owned()))
}
