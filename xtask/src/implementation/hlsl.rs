//! Microsoft's HLSL compilers, DXC and FXC: libraries for Windows that the Node package of Dawn
//! carries, run under Wine by `hlsl_driver.c`.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use super::npm::WEBGPU;
use super::translate::{Compiler, Verdict};
use super::{command, debian};

/// Wine's loader where Debian's wine64 puts it, outside the path.
const WINE: &str = "/usr/lib/wine/wine64";

/// How long one shader may take. FXC takes minutes over the bounds that wgpu gives every loop by default,
/// and a second over the same loop without.
const PATIENCE: Duration = Duration::from_mins(2);

pub(super) struct Library {
    name: &'static str,
    file: &'static str,
    target: &'static str,
}

/// What wgpu uses where it can.
pub(super) const DXC: Library = Library { name: "dxc", file: "dxcompiler.dll", target: "cs_6_0" };

/// What wgpu uses by default.
pub(super) const FXC: Library = Library { name: "fxc", file: "d3dcompiler_47.dll", target: "cs_5_1" };

/// Wine, the driver program and the libraries.
pub(super) struct Hlsl {
    prefix: PathBuf,
    driver: PathBuf,
    libraries: PathBuf,
}

impl Hlsl {
    pub(super) fn provide(directory: &Path) -> Result<Self, String> {
        debian::install(&["wine64", "gcc-mingw-w64-x86-64-win32"])?;
        let libraries = WEBGPU.install(directory)?.join("webgpu/dist/win32-x64");
        let folder = command::create_directory(&directory.join("wine"))?;
        let hlsl = Self { prefix: folder.join("prefix"), driver: folder.join("hlsl_driver.exe"), libraries };

        let source = folder.join("hlsl_driver.c");
        command::write(&source, include_str!("hlsl_driver.c"))?;
        let mut gcc = Command::new("x86_64-w64-mingw32-gcc");
        gcc.args(["-O1", "-Wall", "-Wextra", "-Werror", "-o"]).arg(&hlsl.driver).arg(source);
        command::output(gcc.arg("-lversion"))?;

        if !hlsl.prefix.join("system.reg").exists() {
            eprintln!("Preparing Wine");
            command::output(hlsl.wine().args(["wineboot", "--init"]))?;
        }
        Ok(hlsl)
    }

    pub(super) fn compiler(&self, library: &'static Library) -> Result<Compiler<'_>, String> {
        let (_, version) = self.compile(library, &[])?;
        Ok(Compiler { version, check: Box::new(|files| Ok(self.compile(library, files)?.0)) })
    }

    /// What the compiler says of each file, and its version. A file that it does not survive costs it a new
    /// start.
    fn compile(&self, library: &Library, files: &[PathBuf]) -> Result<(Vec<Verdict>, String), String> {
        let mut verdicts = Vec::new();
        loop {
            let run = Run::start(self, library, &files[verdicts.len()..])?;
            let version = match run.lines.recv_timeout(PATIENCE) {
                Ok(version) if version.starts_with(|first: char| first.is_ascii_digit()) => version,
                Ok(error) => return Err(format!("{} could not be loaded: {error}", library.file)),
                Err(_) => return Err(format!("the driver of {} does not start under Wine", library.file)),
            };
            loop {
                if verdicts.len() == files.len() {
                    return Ok((verdicts, version));
                }
                let line = match run.lines.recv_timeout(PATIENCE) {
                    Ok(line) => line,
                    Err(RecvTimeoutError::Timeout) => {
                        let message = format!("not compiled after {} seconds", PATIENCE.as_secs());
                        verdicts.push(Verdict::Refused(message));
                        break;
                    }
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(format!("the driver of {} ended early", library.file));
                    }
                };
                match line.split_once('\t') {
                    // The name comes before compiling, the rest after.
                    Some((_, "")) | None => {
                        verdicts.push(Verdict::Refused("the compiler crashed".to_owned()));
                        break;
                    }
                    Some((_, "OK")) => verdicts.push(Verdict::Accepted),
                    Some((_, error)) => verdicts.push(Verdict::Refused(unescape(error))),
                }
            }
        }
    }

    fn wine(&self) -> Command {
        let mut wine = Command::new(WINE);
        wine.env("WINEPREFIX", &self.prefix).env("WINEDEBUG", "-all");
        // Without the questions of a first start, and with the FXC given instead of Wine's own.
        wine.env("WINEDLLOVERRIDES", "winemenubuilder.exe,mscoree,mshtml=;d3dcompiler_47=n");
        wine.env_remove("DISPLAY");
        wine
    }
}

/// A driver process, which ends with this.
struct Run {
    child: Child,
    lines: Receiver<String>,
}

impl Run {
    fn start(hlsl: &Hlsl, library: &Library, files: &[PathBuf]) -> Result<Self, String> {
        let mut wine = hlsl.wine();
        wine.arg(&hlsl.driver).args([
            library.name,
            &windows(&hlsl.libraries.join(library.file)),
            library.target,
        ]);
        let child = wine.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut child = child.map_err(|error| format!("{WINE} could not be run: {error}"))?;
        let names: String = files.iter().map(|file| windows(file) + "\n").collect();
        if let Some(mut stdin) = child.stdin.take() {
            // The driver may end before it has read everything; what it printed tells.
            thread::spawn(move || stdin.write_all(names.as_bytes()));
        }
        let (sender, lines) = mpsc::channel();
        if let Some(stdout) = child.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Ok(Self { child, lines })
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Already dead is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Wine's name of a file.
fn windows(path: &Path) -> String {
    format!("Z:{}", path.display())
}

/// Undoes the driver's escaping of line ends.
fn unescape(text: &str) -> String {
    let unescaped: Vec<_> = text.split(r"\\").map(|part| part.replace(r"\n", "\n")).collect();
    unescaped.join(r"\").trim().to_owned()
}
