//! Dawn, Chromium's WebGPU with its own shader compiler, as a Node package. `tests/conformance/src/dawn.mjs`
//! is its other half.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Implementation, command, debian, swiftshader, variable};

const VERSION: &str = "0.6.2";

/// What npm is to install, and the hash of each package.
const PACKAGE: &str = include_str!("../../npm/package.json");
const LOCK: &str = include_str!("../../npm/package-lock.json");

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
    let folder = directory.join(format!("webgpu-{VERSION}"));
    command::fill_once(&folder, |partial| {
        if !command::succeeds("npm", &["--version"]) {
            debian::install(&["npm"])?;
        }
        eprintln!("Installing the npm package webgpu {VERSION}");
        command::write(&partial.join("package.json"), PACKAGE)?;
        command::write(&partial.join("package-lock.json"), LOCK)?;
        // What it would run after installing is for macOS.
        let options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
        command::output(Command::new("npm").args(options).current_dir(partial)).map(drop)
    })?;
    Ok(folder.join("node_modules"))
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{LOCK, PACKAGE, VERSION};

    #[test]
    fn every_package_is_locked_by_its_hash() {
        let [package, lock] = [PACKAGE, LOCK].map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
        assert_eq!(package["dependencies"], serde_json::json!({ "webgpu": VERSION }));
        let locked = lock["packages"].as_object().expect("packages");
        assert_eq!(locked["node_modules/webgpu"]["version"], VERSION);
        for (name, package) in locked.iter().filter(|(name, _)| !name.is_empty()) {
            let hash = package["integrity"].as_str().unwrap_or_default();
            assert!(hash.starts_with("sha512-"), "{name} has no hash");
        }
    }
}
