//! Makes sure that there is an adapter: a GPU, or else Mesa's software Vulkan driver, which is faster than
//! its OpenGL driver.

use std::process::{Command, Stdio};

use crate::{Profile, cargo_command, implementation};

/// The exit code of `examples/adapters.rs` when there is no adapter.
const NO_ADAPTER: i32 = 2;

/// Variables of wgpu and of the Vulkan loader that hide adapters.
const FILTERS: [&str; 6] = [
    "WGPU_BACKEND",
    "WGPU_ADAPTER_NAME",
    "VK_DRIVER_FILES",
    "VK_ICD_FILENAMES",
    "VK_LOADER_DRIVERS_SELECT",
    "VK_LOADER_DRIVERS_DISABLE",
];

/// How each package manager installs Mesa's software Vulkan driver.
const INSTALLERS: [(&str, &str); 4] = [
    ("apt-get", "apt-get update && apt-get install -y mesa-vulkan-drivers"),
    ("dnf", "dnf install -y mesa-vulkan-drivers"),
    ("pacman", "pacman -S --noconfirm vulkan-swrast"),
    ("zypper", "zypper install -y libvulkan_lvp"),
];

/// An adapter as `examples/adapters.rs` lists it.
#[derive(Debug, PartialEq)]
struct Adapter {
    kind: String,
    backend: String,
    name: String,
    driver: String,
}

impl Adapter {
    fn parse(line: &str) -> Option<Self> {
        let columns: Vec<String> = line.split('\t').map(str::to_owned).collect();
        let [kind, backend, name, driver] = columns.try_into().ok()?;
        Some(Self { kind, backend, name, driver })
    }

    /// Whether Mesa's software Vulkan driver would be better.
    fn is_last_resort(&self) -> bool {
        self.kind == "Cpu" && self.backend == "Gl"
    }

    fn describe(&self) -> String {
        let Self { kind, backend, name, driver } = self;
        format!("{name} ({kind}, {backend}, {})", driver.trim())
    }
}

/// What to do about the adapters.
#[derive(Debug, PartialEq)]
enum Choice<'a> {
    /// Run on this adapter.
    Use(&'a Adapter),
    /// Give up: the environment hides all of these adapters.
    Hidden(&'a [Adapter]),
    /// Install Mesa's software Vulkan driver. If that is not possible, run on this adapter.
    Install(Option<&'a Adapter>),
}

/// Decides from the adapters that the environment leaves, the best first. If the environment filters
/// adapters, `unfiltered` has all that there would be without filters.
fn choose<'a>(left: &'a [Adapter], unfiltered: Option<&'a [Adapter]>) -> Choice<'a> {
    match (left.first(), unfiltered) {
        (Some(best), None) if best.is_last_resort() => Choice::Install(Some(best)),
        (Some(best), _) => Choice::Use(best),
        (None, Some(hidden @ [_, ..])) => Choice::Hidden(hidden),
        (None, _) => Choice::Install(None),
    }
}

/// Prints which adapter is used. Installs a software driver if there is nothing better, the process may
/// install it, and no filter hides a better adapter.
pub(crate) fn ensure(profile: Profile) -> Result<(), String> {
    eprintln!("Adapter: {}", adapter(profile)?);
    Ok(())
}

/// Finds the adapter to run on, and returns its description.
fn adapter(profile: Profile) -> Result<String, String> {
    let found = Found::look(profile)?;
    let (reason, otherwise) = match found.choice() {
        Choice::Use(adapter) => return Ok(adapter.describe()),
        Choice::Hidden(hidden) => return Err(all_hidden(hidden)),
        Choice::Install(None) => {
            ("there is no adapter, neither a GPU with a driver nor a software driver", None)
        }
        Choice::Install(Some(gl)) => ("there is only software OpenGL, which is slower", Some(gl)),
    };
    match (install(reason), otherwise) {
        (Ok(()), _) => {}
        (Err(message), None) => return Err(message),
        (Err(message), Some(gl)) => {
            eprintln!("{message}");
            return Ok(gl.describe());
        }
    }
    match Found::look(profile)?.choice() {
        Choice::Use(adapter) | Choice::Install(Some(adapter)) => Ok(adapter.describe()),
        Choice::Hidden(hidden) => Err(all_hidden(hidden)),
        Choice::Install(None) => Err("The driver was installed, but there is still no adapter.".to_owned()),
    }
}

fn all_hidden(hidden: &[Adapter]) -> String {
    let set = FILTERS.iter().filter_map(|name| {
        let value = std::env::var_os(name)?;
        Some(format!("{name}={}", value.display()))
    });
    let set = set.collect::<Vec<_>>().join(", ");
    let list: Vec<_> = hidden.iter().map(Adapter::describe).collect();
    let list = list.join("\n    ");
    format!("No adapter is left with {set}. Without these variables there would be:\n    {list}")
}

/// The adapters of this machine.
struct Found {
    left: Vec<Adapter>,
    /// The adapters without filters, if the environment has filters.
    unfiltered: Option<Vec<Adapter>>,
}

impl Found {
    fn look(profile: Profile) -> Result<Self, String> {
        let left = list(profile, &[])?;
        let filtered = FILTERS.iter().any(|name| std::env::var_os(name).is_some());
        let unfiltered = filtered.then(|| list(profile, &FILTERS)).transpose()?;
        Ok(Self { left, unfiltered })
    }

    fn choice(&self) -> Choice<'_> {
        choose(&self.left, self.unfiltered.as_deref())
    }
}

/// The adapters without these environment variables, the best first.
fn list(profile: Profile, without: &[&str]) -> Result<Vec<Adapter>, String> {
    let mut arguments = vec!["run", "--quiet", "--example", "adapters"];
    if matches!(profile, Profile::Release) {
        arguments.push("--release");
    }
    let mut command = cargo_command(&arguments);
    for name in without {
        command.env_remove(name);
    }
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| format!("cargo could not be run: {error}"))?;
    if !matches!(output.status.code(), Some(0 | NO_ADAPTER)) {
        return Err("The adapters could not be listed: see above.".to_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let parse = |line| Adapter::parse(line).ok_or_else(|| format!("This describes no adapter: {line}"));
    text.lines().map(parse).collect()
}

/// Installs Mesa's software Vulkan driver, or returns an error that says how to.
fn install(reason: &str) -> Result<(), String> {
    let installer = INSTALLERS
        .into_iter()
        .find(|(program, _)| cfg!(target_os = "linux") && runs(program, &["--version"]));
    let Some((program, command)) = installer else {
        return Err(format!("Install a driver for Vulkan, Metal or DX12: {reason}."));
    };
    let by_hand = format!("sudo sh -c '{command}'");
    // Only Debian's installation is tested; on other systems the user installs.
    let root = (program == "apt-get").then(implementation::as_root).flatten();
    let Some(mut root) = root else {
        return Err(format!("Install Mesa's software Vulkan driver, since {reason}:\n    {by_hand}"));
    };
    eprintln!("Installing Mesa's software Vulkan driver, since {reason}: {command}");
    let status = root.args(["sh", "-c", command]).stdout(std::io::stderr()).status();
    if status.is_ok_and(|status| status.success()) {
        return Ok(());
    }
    Err(format!("The installation failed. Try it yourself:\n    {by_hand}"))
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let status = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[cfg(test)]
mod tests {
    use super::{Adapter, Choice, choose};

    fn adapter(kind: &str, backend: &str) -> Adapter {
        let line = format!("{kind}\t{backend}\tsome name, with (signs)\tdriver 1.2 (more)");
        Adapter::parse(&line).expect("four columns")
    }

    #[test]
    fn hardware_is_used_whatever_its_backend() {
        for (kind, backend) in [
            ("DiscreteGpu", "Vulkan"),
            ("IntegratedGpu", "Metal"),
            ("VirtualGpu", "Dx12"),
            ("Other", "Gl"),
            ("IntegratedGpu", "Gl"),
        ] {
            let both = [adapter(kind, backend), adapter("Cpu", "Gl")];
            assert_eq!(choose(&both, None), Choice::Use(&both[0]));
            assert_eq!(choose(&both, Some(&both)), Choice::Use(&both[0]));
        }
    }

    #[test]
    fn software_vulkan_is_used_before_software_gl() {
        let both = [adapter("Cpu", "Vulkan"), adapter("Cpu", "Gl")];
        assert_eq!(choose(&both, None), Choice::Use(&both[0]));
        assert_eq!(choose(&both[..1], Some(&both)), Choice::Use(&both[0]));
        // The software adapter of Windows.
        let warp = [adapter("Cpu", "Dx12")];
        assert_eq!(choose(&warp, None), Choice::Use(&warp[0]));
    }

    #[test]
    fn vulkan_is_installed_where_there_is_only_software_gl_or_nothing() {
        let gl = [adapter("Cpu", "Gl")];
        assert_eq!(choose(&gl, None), Choice::Install(Some(&gl[0])));
        assert_eq!(choose(&[], None), Choice::Install(None));
        // If there is nothing, filters hide nothing, so they do not prevent an installation.
        assert_eq!(choose(&[], Some(&[])), Choice::Install(None));
    }

    #[test]
    fn nothing_is_installed_where_filters_hide_what_is_there() {
        for there in [[adapter("DiscreteGpu", "Vulkan")], [adapter("Cpu", "Vulkan")], [adapter("Cpu", "Gl")]]
        {
            assert_eq!(choose(&[], Some(&there)), Choice::Hidden(&there));
        }
        // A user who asks for GL by name gets it.
        let both = [adapter("Cpu", "Vulkan"), adapter("Cpu", "Gl")];
        assert_eq!(choose(&both[1..], Some(&both)), Choice::Use(&both[1]));
        assert_eq!(choose(&both[1..], Some(&both[1..])), Choice::Use(&both[1]));
    }

    #[test]
    fn an_adapter_is_four_columns() {
        assert_eq!(adapter("Cpu", "Gl").describe(), "some name, with (signs) (Cpu, Gl, driver 1.2 (more))");
        for line in ["", "Cpu\tGl\tname", "Cpu\tGl\tname\tdriver\tmore"] {
            assert_eq!(Adapter::parse(line), None, "{line}");
        }
    }
}
