//! GPU implementations that need no GPU: fetched into one directory, with the environment that makes
//! a process run on exactly one of them; and compilers for those that cannot run here.

mod command;
mod cuda;
mod dawn;
mod debian;
mod gl;
mod hlsl;
mod lavapipe;
pub(crate) mod npm;
mod opencl;
mod python;
mod spirv;
mod swiftshader;
mod translate;
mod validation;

use std::path::{Path, PathBuf};

pub(crate) use command::{create_directory, output, succeeds, write};
pub(crate) use debian::as_root;
pub(crate) use opencl::OpenCl;
pub(crate) use translate::translate;
pub(crate) use validation::messages as validation_messages;

/// Something to run the tests on.
#[derive(Debug, Clone)]
pub(crate) struct Implementation {
    pub name: String,
    /// The version of the package it came with.
    pub version: String,
    /// Environment for the process under test.
    pub env: Vec<(String, String)>,
}

/// Fetches the implementations of a name into `directory`, unless they are there.
pub(crate) fn provide(name: &str, directory: &Path) -> Result<Vec<Implementation>, String> {
    debian::require()?;
    let directory = &create_directory(directory)?;
    match name {
        "lavapipe" => lavapipe::provide(directory),
        "swiftshader" => Ok(vec![swiftshader::provide(directory)?]),
        "gl" => Ok(vec![gl::provide()?]),
        "dawn" => Ok(vec![dawn::provide(directory)?]),
        "dawn-null" => Ok(vec![dawn::provide_null(directory)?]),
        _ => Err(format!("There is no implementation {name}.")),
    }
}

/// Installs Debian's packages; returns the first one's version.
pub(crate) fn install(packages: &[&str]) -> Result<String, String> {
    debian::require()?;
    debian::install(packages)
}

/// Fetches NVIDIA's compilers; returns their folder and version.
pub(crate) fn cuda(directory: &Path) -> Result<(PathBuf, String), String> {
    cuda::provide(&create_directory(directory)?)
}

/// Fetches Intel's compilers.
pub(crate) fn opencl(directory: &Path) -> Result<OpenCl, String> {
    OpenCl::provide(&create_directory(directory)?)
}

/// A path as a variable of the environment.
fn variable(name: &str, value: impl AsRef<Path>) -> (String, String) {
    (name.to_owned(), value.as_ref().display().to_string())
}

/// Installs a package of Python's index, fixed by its hash, into a folder of `directory`, and returns that.
pub(crate) fn python_package(requirement: &str, directory: &Path) -> Result<PathBuf, String> {
    python::install(requirement, directory)
}
