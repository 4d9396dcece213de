//! AMD's GPUs, by Mesa's RADV: each in a process of its own, because the driver reads which GPU it is to be
//! for once in a process.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Column, Compiled, Gpu, column, gcn, loops, radv, stem};
use crate::implementation;

/// Two generations of RDNA, and a Vega; the names are those of `RADV_FORCE_FAMILY`.
pub(super) const FAMILIES: [&str; 3] = ["navi21", "gfx1100", "vega10"];

const SPILLED_VGPRS: &str = "Spilled VGPRs";
const SCRATCH: &str = "Scratch size";

const COLUMNS: [Column; 11] = [
    // The scheduler hands out registers that would limit nothing: what is needed is the smaller number.
    column("VGPRs needed", "Pre-Sched VGPRs"),
    column("given", "VGPRs"),
    column("spilled", SPILLED_VGPRS),
    column("scratch B", SCRATCH),
    column("SGPRs", "SGPRs"),
    column("spilled", "Spilled SGPRs"),
    column("LDS B", "LDS size"),
    // How many a SIMD has room for, of 32 lanes on RDNA (one of 64 counts twice) and of 64 on Vega.
    Column { heading: "waves", statistic: "Subgroups per SIMD", small_is_bad: true },
    column("instructions", "Instructions"),
    column("branches", "Branches"),
    column("code B", "Code size"),
];

/// Installs the driver; returns its version.
pub(super) fn install() -> Result<String, String> {
    implementation::install(&["mesa-vulkan-drivers", "libvulkan1"])
}

/// Compiles the .spv files of a folder for each family.
pub(super) fn compile(families: &[String], shaders: &Path) -> Result<Vec<Gpu>, String> {
    let driver = install()?;
    let (manifest, driver) = (&manifest()?, &driver);
    std::thread::scope(|scope| {
        let threads: Vec<_> = families
            .iter()
            .map(|family| scope.spawn(move || in_child(family, driver, manifest, shaders)))
            .collect();
        let results =
            threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?);
        results.collect()
    })
}

/// The driver's manifest, which names it to the loader. Debian 13 and later leave out the architecture.
fn manifest() -> Result<PathBuf, String> {
    const FOLDER: &str = "/usr/share/vulkan/icd.d";
    let names = ["radeon_icd.x86_64.json", "radeon_icd.json"];
    let found = names.map(|name| Path::new(FOLDER).join(name)).into_iter().find(|path| path.exists());
    found.ok_or_else(|| format!("mesa-vulkan-drivers is installed without a manifest of RADV in {FOLDER}."))
}

/// Has a process of its own compile every shader for a family.
fn in_child(family: &str, driver: &str, manifest: &Path, shaders: &Path) -> Result<Gpu, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut child = Command::new(program);
    child.args(["isa", "--child", "--shaders"]).arg(shaders);
    child.env("RADV_FORCE_FAMILY", family).env("MESA_SHADER_CACHE_DISABLE", "true");
    // The first name is today's, the second is for loaders older than it.
    child.env("VK_DRIVER_FILES", manifest).env("VK_ICD_FILENAMES", manifest);
    let output = child.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{family} ({}): {}", output.status, said.trim()));
    }
    let (gpu, shaders): (String, BTreeMap<String, Compiled>) =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{family}: {error}"))?;
    let title = format!("{family} ({gpu}, Mesa {driver})");
    Ok(Gpu { name: family.to_owned(), title, columns: &COLUMNS, spills: &[SPILLED_VGPRS, SCRATCH], shaders })
}

/// Compiles every shader for the GPU that the environment names, and prints what `in_child` reads.
pub(super) fn child(folder: &Path) -> Result<(), String> {
    let compiler = radv::Compiler::open()?;
    let mut compiled = BTreeMap::new();
    let mut files = super::files(folder, "spv")?;
    // Mesa 22's RADV does not know cooperative matrices, and crashes.
    files.retain(|path| !stem(path).contains("_matrices_"));
    for path in files {
        let name = stem(&path);
        let bytes = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let words: Vec<u32> = bytes.as_chunks().0.iter().copied().map(u32::from_le_bytes).collect();
        let (statistics, assembly) = compiler.compile(&words).map_err(|error| format!("{name}: {error}"))?;
        compiled.insert(name, Compiled::new(statistics, loops::loops(&gcn::parse(&assembly))));
    }
    println!("{}", serde_json::json!([compiler.name, compiled]));
    Ok(())
}
