//! Packages of Python's package index, which are not all Python: with their versions and hashes fixed, into a
//! folder of their own.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{command, debian};

/// Installs what pip's requirements list, and nothing else, into a folder in `directory` that has the first
/// one's name and version.
pub(super) fn install(requirements: &str, directory: &Path) -> Result<PathBuf, String> {
    let package = requirements.split_whitespace().next().unwrap_or_default();
    let folder = directory.join(package);
    command::fill_once(&folder, |partial| {
        if !command::succeeds("python3", &["-m", "pip", "--version"]) {
            let installed = debian::require().and_then(|()| debian::install(&["python3-pip"]));
            installed.map_err(|error| format!("{package} needs Python 3 with pip to install it: {error}"))?;
        }
        eprintln!("Installing the Python package {package}");
        let file = partial.join("requirements.txt");
        command::write(&file, requirements)?;
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--require-hashes", "--only-binary", ":all:", "--no-deps"]);
        command::output(pip.arg("--requirement").arg(file).arg("--target").arg(partial)).map(drop)
    })?;
    Ok(folder)
}
