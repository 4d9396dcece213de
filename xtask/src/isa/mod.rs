//! `cargo xtask isa`: every shader compiled for AMD GPUs that are not there, and what the driver says
//! of registers, spills and occupancy. A shader that keeps registers in memory fails the command.

mod radv;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use radv::Statistics;

use crate::conformance::suite_command;
use crate::implementation;

/// Two generations of RDNA, and a Vega; the names are those of `RADV_FORCE_FAMILY`.
const FAMILIES: [&str; 3] = ["navi21", "gfx1100", "vega10"];

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print every shader, and not only the worst of each kernel.
    #[arg(long)]
    all: bool,
    /// Compile for these GPUs, named as in `RADV_FORCE_FAMILY`.
    #[arg(long = "family", value_name = "NAME", default_values_t = FAMILIES.map(str::to_owned))]
    families: Vec<String>,
    /// Compile the .spv files of this folder instead of the library's shaders.
    #[arg(long, value_name = "FOLDER")]
    shaders: Option<PathBuf>,
    /// Compile for the one GPU that the environment names, and print JSON.
    #[arg(long, hide = true, requires = "shaders")]
    child: bool,
}

/// A column of the tables: its heading, the driver's name for it, and whether small is bad.
struct Column {
    heading: &'static str,
    statistic: &'static str,
    small_is_bad: bool,
}

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
    Column { heading: "waves", statistic: "Subgroups per SIMD", small_is_bad: true },
    column("instructions", "Instructions"),
    column("branches", "Branches"),
    column("code B", "Code size"),
];

const fn column(heading: &'static str, statistic: &'static str) -> Column {
    Column { heading, statistic, small_is_bad: false }
}

/// A GPU and what each shader became on it.
struct Family {
    /// As the driver calls it.
    gpu: String,
    shaders: BTreeMap<String, Statistics>,
}

/// Prints the tables, writes them into `target/isa`, and fails if a shader spills.
pub(crate) fn run(root: &Path, options: &Options) -> Result<(), String> {
    let folder = root.join("target/isa");
    let shaders = match &options.shaders {
        Some(shaders) if options.child => return child(shaders),
        Some(shaders) => shaders.clone(),
        None => write_shaders(&folder)?,
    };
    let driver = implementation::install(&["mesa-vulkan-drivers", "libvulkan1"])?;
    let manifest = manifest()?;
    // The driver reads the family once in a process.
    let families = std::thread::scope(|scope| {
        let (manifest, shaders) = (&manifest, &shaders);
        let families = options.families.iter();
        let threads: Vec<_> =
            families.map(|family| scope.spawn(move || in_child(family, manifest, shaders))).collect();
        let results =
            threads.into_iter().map(|thread| thread.join().map_err(|_| "a thread panicked".to_owned())?);
        results.collect::<Result<Vec<_>, String>>()
    })?;
    println!(
        "The worst of each kernel as Mesa {driver} compiles it. Waves: how many a SIMD has room for, of 32"
    );
    println!("lanes on RDNA (one of 64 counts twice) and of 64 on Vega.");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut spills = Vec::new();
    for (name, Family { gpu, shaders: compiled }) in options.families.iter().zip(&families) {
        let every = table("shader", compiled);
        let worst = table("kernel", &worst(compiled));
        let title = format!("{name} ({gpu}), {} shaders", compiled.len());
        println!("\n{title}\n{worst}");
        if options.all {
            println!("{every}");
        }
        let file = folder.join(format!("{name}.md"));
        let report = format!("# {title}\n\nMesa {driver}\n\n{worst}\n{every}");
        fs::write(&file, report).map_err(|error| format!("{}: {error}", file.display()))?;
        spills.extend(compiled.iter().filter_map(|(shader, row)| {
            let (vgprs, scratch) = (row[SPILLED_VGPRS], row[SCRATCH]);
            let spills = vgprs > 0 || scratch > 0;
            spills.then(|| format!("{shader} on {name}: {vgprs} VGPRs spilled, {scratch} bytes of scratch"))
        }));
    }
    if spills.is_empty() {
        println!("No shader spills.");
        return Ok(());
    }
    Err(format!("{}\nSpills: the shaders' text lies in {}", spills.join("\n"), shaders.display()))
}

/// The library's shaders, as files.
fn write_shaders(folder: &Path) -> Result<PathBuf, String> {
    let shaders = folder.join("shaders");
    // Shaders of an earlier version are no concern of this one.
    let _ = fs::remove_dir_all(&shaders);
    match suite_command().arg("--shaders").arg(&shaders).stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(shaders),
        Ok(status) => Err(format!("the shaders could not be written ({status})")),
        Err(error) => Err(format!("cargo could not be run: {error}")),
    }
}

/// The driver's manifest, which names it to the loader. Debian 13 and later leave out the architecture.
fn manifest() -> Result<PathBuf, String> {
    const FOLDER: &str = "/usr/share/vulkan/icd.d";
    let names = ["radeon_icd.x86_64.json", "radeon_icd.json"];
    let found = names.map(|name| Path::new(FOLDER).join(name)).into_iter().find(|path| path.exists());
    found.ok_or_else(|| format!("mesa-vulkan-drivers is installed without a manifest of RADV in {FOLDER}."))
}

/// Has a process of its own compile every shader for a family.
fn in_child(family: &str, manifest: &Path, shaders: &Path) -> Result<Family, String> {
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
    let (gpu, shaders): (String, BTreeMap<String, Statistics>) =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{family}: {error}"))?;
    for (shader, statistics) in &shaders {
        // A bar that looks at nothing would always be cleared.
        if let Some(column) = COLUMNS.iter().find(|column| !statistics.contains_key(column.statistic)) {
            return Err(format!("{family}: the driver says nothing of {} for {shader}", column.statistic));
        }
    }
    Ok(Family { gpu, shaders })
}

/// Compiles every shader for the GPU that the environment names.
fn child(folder: &Path) -> Result<(), String> {
    let unreadable = |path: &Path, error| format!("{} could not be read: {error}", path.display());
    let compiler = radv::Compiler::open()?;
    let mut compiled = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let path = entry.map_err(|error| unreadable(folder, error))?.path();
        if path.extension().is_none_or(|extension| extension != "spv") {
            continue;
        }
        let bytes = fs::read(&path).map_err(|error| unreadable(&path, error))?;
        let words: Vec<u32> = bytes.as_chunks().0.iter().copied().map(u32::from_le_bytes).collect();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let statistics = compiler.compile(&words).map_err(|error| format!("{name}: {error}"))?;
        compiled.insert(name, statistics);
    }
    if compiled.is_empty() {
        return Err(format!("The folder {} has no .spv to compile.", folder.display()));
    }
    println!("{}", serde_json::json!([compiler.name, compiled]));
    Ok(())
}

/// The worst of each statistic over the shaders of a kernel, which need not be the same shader's.
fn worst(shaders: &BTreeMap<String, Statistics>) -> BTreeMap<String, Statistics> {
    let mut kernels: BTreeMap<String, Statistics> = BTreeMap::new();
    for (shader, statistics) in shaders {
        // NAME_INDEX
        let kernel = shader.rsplit_once('_').map_or(shader.as_str(), |(kernel, _)| kernel);
        let worst = kernels.entry(kernel.to_owned()).or_insert_with(|| statistics.clone());
        for column in &COLUMNS {
            let (one, other) = (worst[column.statistic], statistics[column.statistic]);
            let value = if column.small_is_bad { one.min(other) } else { one.max(other) };
            worst.insert(column.statistic.to_owned(), value);
        }
    }
    kernels
}

/// A table in Markdown.
fn table(what: &str, rows: &BTreeMap<String, Statistics>) -> String {
    let mut text = format!("| {what:<24} |");
    for column in &COLUMNS {
        let _ = write!(text, " {} |", column.heading);
    }
    let _ = write!(text, "\n|{}|", "-".repeat(26));
    for column in &COLUMNS {
        let _ = write!(text, "{}:|", "-".repeat(column.heading.len() + 1));
    }
    for (name, statistics) in rows {
        let _ = write!(text, "\n| {name:<24} |");
        for column in &COLUMNS {
            let _ = write!(text, " {:>width$} |", statistics[column.statistic], width = column.heading.len());
        }
    }
    text + "\n"
}
