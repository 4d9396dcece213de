//! npm's packages, each with what it depends on fixed by its hash: in `npm/`, a folder for each.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{command, debian};

/// A package of npm's registry.
pub(crate) struct Package {
    pub name: &'static str,
    pub version: &'static str,
    /// What npm is to install, and the hash of each package.
    pub manifest: &'static str,
    pub lock: &'static str,
}

/// Dawn, Chromium's WebGPU.
pub(crate) const WEBGPU: Package = Package {
    name: "webgpu",
    version: "0.6.2",
    manifest: include_str!("../../npm/webgpu/package.json"),
    lock: include_str!("../../npm/webgpu/package-lock.json"),
};

/// What drives a browser.
pub(crate) const PLAYWRIGHT: Package = Package {
    name: "playwright-core",
    version: "1.65.1",
    manifest: include_str!("../../npm/playwright-core/package.json"),
    lock: include_str!("../../npm/playwright-core/package-lock.json"),
};

/// What checks the types of our npm package, and writes them down.
pub(crate) const TYPESCRIPT: Package = Package {
    name: "typescript",
    version: "5.9.3",
    manifest: include_str!("../../npm/typescript/package.json"),
    lock: include_str!("../../npm/typescript/package-lock.json"),
};

impl Package {
    /// Installs the package into a folder of `directory`, and returns the folder of modules.
    pub(crate) fn install(&self, directory: &Path) -> Result<PathBuf, String> {
        let Self { name, version, manifest, lock } = self;
        if !command::succeeds("node", &["--version"]) {
            debian::require()?;
            debian::install(&["nodejs"])?;
        }
        let folder = command::create_directory(directory)?.join(format!("{name}-{version}"));
        command::fill_once(&folder, |partial| {
            if !command::succeeds("npm", &["--version"]) {
                debian::require()?;
                debian::install(&["npm"])?;
            }
            eprintln!("Installing the npm package {name} {version}");
            command::write(&partial.join("package.json"), manifest)?;
            command::write(&partial.join("package-lock.json"), lock)?;
            // What they would run after installing is for macOS, or fetches browsers.
            let options = ["ci", "--ignore-scripts", "--no-audit", "--no-fund"];
            command::output(Command::new("npm").args(options).current_dir(partial)).map(drop)
        })?;
        Ok(folder.join("node_modules"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::{PLAYWRIGHT, TYPESCRIPT, WEBGPU};

    #[test]
    fn every_package_is_locked_by_its_hash() {
        for package in [WEBGPU, PLAYWRIGHT, TYPESCRIPT] {
            let [manifest, lock] = [package.manifest, package.lock]
                .map(|text| serde_json::from_str::<Value>(text).expect("JSON"));
            assert_eq!(manifest["dependencies"], serde_json::json!({ package.name: package.version }));
            let locked = lock["packages"].as_object().expect("packages");
            assert_eq!(locked[&format!("node_modules/{}", package.name)]["version"], package.version);
            for (name, package) in locked.iter().filter(|(name, _)| !name.is_empty()) {
                let hash = package["integrity"].as_str().unwrap_or_default();
                assert!(hash.starts_with("sha512-"), "{name} has no hash");
            }
        }
    }
}
