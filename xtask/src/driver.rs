//! Makes sure that there is something to run on: a GPU, or Mesa's software Vulkan driver.

use std::process::{Command, Stdio};

use crate::{Profile, cargo_command, implementation};

/// The exit code of `examples/adapters.rs` when there is no adapter.
const NO_ADAPTER: i32 = 2;

/// How each package manager installs Mesa's software Vulkan driver.
const INSTALLERS: [(&str, &str); 4] = [
    ("apt-get", "apt-get update && apt-get install -y mesa-vulkan-drivers"),
    ("dnf", "dnf install -y mesa-vulkan-drivers"),
    ("pacman", "pacman -S --noconfirm vulkan-swrast"),
    ("zypper", "zypper install -y libvulkan_lvp"),
];

/// Looks for an adapter; where there is none, says so and installs a software driver if it can.
pub(crate) fn ensure(profile: Profile) -> Result<(), String> {
    if adapter_exists(profile)? {
        return Ok(());
    }
    eprintln!("No GPU adapter was found: neither a GPU with a driver nor a software driver.");
    let installer = INSTALLERS
        .into_iter()
        .find(|(program, _)| cfg!(target_os = "linux") && runs(program, &["--version"]));
    let Some((program, command)) = installer else {
        return Err("Install a driver for Vulkan, Metal, DX12 or GL, and try again.".to_owned());
    };
    // Only Debian's is tried out; the others are left to their users.
    if program != "apt-get" {
        return Err(format!("Install Mesa's software driver and try again:\n    sudo sh -c '{command}'"));
    }
    let Some(mut install) = implementation::as_root() else {
        return Err(format!("Install Mesa's software driver and try again:\n    sudo sh -c '{command}'"));
    };
    eprintln!("Installing Mesa's software Vulkan driver: {command}");
    let status = install.args(["sh", "-c", command]).status();
    if !status.is_ok_and(|status| status.success()) {
        return Err(format!("The installation failed. Try it yourself:\n    sudo sh -c '{command}'"));
    }
    if adapter_exists(profile)? {
        return Ok(());
    }
    Err("The driver was installed, but there is still no adapter. WGPU_BACKEND and WGPU_ADAPTER_NAME, if set, \
         may exclude it."
        .to_owned())
}

fn adapter_exists(profile: Profile) -> Result<bool, String> {
    let mut arguments = vec!["run", "--quiet", "--example", "adapters"];
    if matches!(profile, Profile::Release) {
        arguments.push("--release");
    }
    let status = cargo_command(&arguments).stdout(Stdio::null()).status();
    match status.map(|status| status.code()) {
        Ok(Some(0)) => Ok(true),
        Ok(Some(NO_ADAPTER)) => Ok(false),
        Ok(_) => Err("The adapters could not be listed: see above.".to_owned()),
        Err(error) => Err(format!("cargo could not be run: {error}")),
    }
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
