//! Dawn, Chromium's WebGPU with its own shader compiler, as a Node package. `tests/conformance/dawn.mjs`
//! is its other half.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Implementation, command, debian, swiftshader, variable};

const VERSION: &str = "0.6.2";

/// Dawn on `SwiftShader`: it refuses the lavapipe of Debian 12.
pub(super) fn provide(directory: &Path) -> Result<Implementation, String> {
    let driver = swiftshader::provide(directory)?;
    let mut implementation = implementation("dawn", "vulkan", directory)?;
    implementation.version = format!("{VERSION} on SwiftShader of {}", driver.version);
    implementation.env.extend(driver.env);
    Ok(implementation)
}

/// Dawn without a driver: it checks shaders and commands, and runs nothing.
pub(super) fn provide_null(directory: &Path) -> Result<Implementation, String> {
    implementation("dawn-null", "null", directory)
}

fn implementation(name: &str, backend: &str, directory: &Path) -> Result<Implementation, String> {
    let modules = install(directory)?;
    let env = vec![variable("HYDRALORA_DAWN", modules), variable("HYDRALORA_DAWN_BACKEND", backend)];
    Ok(Implementation { name: name.to_owned(), version: VERSION.to_owned(), env })
}

/// Installs the package into `directory` and returns the folder of modules.
pub(super) fn install(directory: &Path) -> Result<PathBuf, String> {
    if !command::succeeds("node", &["--version"]) {
        debian::install(&["nodejs"])?;
    }
    let folder = directory.join(format!("dawn-{VERSION}"));
    command::fill_once(&folder, |partial| {
        if !command::succeeds("npm", &["--version"]) {
            debian::install(&["npm"])?;
        }
        eprintln!("Installing the npm package webgpu {VERSION}");
        // What it would run after installing is for macOS.
        let options = ["--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"];
        let mut npm = Command::new("npm");
        npm.args(["install", "--prefix"]).arg(partial).args(options).arg(format!("webgpu@{VERSION}"));
        command::output(&mut npm).map(drop)
    })?;
    Ok(folder.join("node_modules"))
}
