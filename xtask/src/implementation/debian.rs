//! Debian's packages: installed where other packages expect them, or only unpacked into a folder.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command;

/// A package unpacked into a folder of its own.
pub(super) struct Package {
    pub root: PathBuf,
    pub version: String,
}

/// Everything here comes as Debian packages for x86-64.
pub(super) fn require() -> Result<(), String> {
    let fits = cfg!(all(target_os = "linux", target_arch = "x86_64"));
    if fits && command::succeeds("apt-get", &["--version"]) && command::succeeds("dpkg", &["--version"]) {
        return Ok(());
    }
    Err("The implementations come from Debian's packages: this needs Debian 12 or later on x86-64, with \
         apt-get and dpkg."
        .to_owned())
}

/// An installed package's version.
pub(super) fn version(package: &str) -> Option<String> {
    let format = "--showformat=${db:Status-Status} ${Version}";
    let line = command::output(Command::new("dpkg-query").args(["--show", format, package])).ok()?;
    line.strip_prefix("installed ").map(str::to_owned)
}

/// Installs the packages that are missing; returns the first one's version.
pub(super) fn install(packages: &[&str]) -> Result<String, String> {
    let missing: Vec<&str> = packages.iter().copied().filter(|package| version(package).is_none()).collect();
    if !missing.is_empty() {
        let by_hand = format!("apt-get install {}", missing.join(" "));
        let install = || {
            let mut install =
                as_root().ok_or_else(|| format!("Only root can install packages:\n    {by_hand}"))?;
            install.args(["apt-get", "install", "--yes", "--no-install-recommends"]);
            // Another apt-get may be at work.
            command::output(install.args(["--option", "DPkg::Lock::Timeout=300"]).args(&missing))
        };
        eprintln!("Installing {}", missing.join(", "));
        with_fresh_lists(install)?;
    }
    version(packages[0]).ok_or_else(|| format!("{} was installed, but dpkg does not know it.", packages[0]))
}

/// Unpacks a package without what it depends on, and without installing it.
pub(super) fn unpack(package: &str, directory: &Path) -> Result<Package, String> {
    let root = directory.join(package);
    let version_file = root.join("version");
    command::fill_once(&root, |partial| {
        eprintln!("Unpacking {package}");
        with_fresh_lists(|| {
            command::output(Command::new("apt-get").args(["download", package]).current_dir(partial))
        })?;
        let files = fs::read_dir(partial).map_err(|error| error.to_string())?;
        let archive = files
            .filter_map(Result::ok)
            .map(|file| file.path())
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| format!("apt-get downloaded no {package}."))?;
        let version = command::output(Command::new("dpkg-deb").arg("--field").arg(&archive).arg("Version"))?;
        command::output(Command::new("dpkg-deb").arg("--extract").args([&archive, partial]))?;
        fs::remove_file(&archive).map_err(|error| error.to_string())?;
        command::write(&partial.join("version"), version)
    })?;
    let version = fs::read_to_string(&version_file)
        .map_err(|error| format!("{} could not be read: {error}", version_file.display()))?;
    Ok(Package { root, version })
}

/// Fresh machines have no package lists, and old lists name packages that are gone.
fn with_fresh_lists(apt: impl Fn() -> Result<String, String>) -> Result<(), String> {
    if apt().is_ok() {
        return Ok(());
    }
    if let Some(mut update) = as_root() {
        command::output(update.args(["apt-get", "update"]))?;
    }
    apt().map(drop)
}

/// What runs the command line given to it as root, where that needs no password.
pub(crate) fn as_root() -> Option<Command> {
    let mut command = if command::output(Command::new("id").arg("-u")).is_ok_and(|id| id == "0") {
        Command::new("env")
    } else if command::succeeds("sudo", &["-n", "true"]) {
        let mut sudo = Command::new("sudo");
        sudo.args(["-n", "env"]);
        sudo
    } else {
        return None;
    };
    command.arg("DEBIAN_FRONTEND=noninteractive");
    Some(command)
}
