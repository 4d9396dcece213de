//! `cargo xtask isa`: shaders compiled for GPUs that are not there. What the compilers say of registers and
//! spills, and what their instructions say of loads in flight: while one load takes as long as hundreds of
//! multiplications, a loop that waits for each before it asks for the next does little else.
//!
//! What is worse than `demands` allows fails the command.

mod amd;
mod demands;
mod gcn;
mod intel;
mod loops;
mod msl;
mod nvidia;
mod radv;
mod sass;
mod xe;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use clap::ValueEnum;
use loops::{Loop, Role};

use crate::conformance::suite_command;
use crate::implementation;

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Print every shader, and not only the worst of each kernel.
    #[arg(long)]
    all: bool,
    /// Compile for this vendor's GPUs; may be given several times. By default for those of every vendor whose
    /// compiler can be had here.
    #[arg(long = "vendor", value_name = "VENDOR")]
    vendors: Vec<Vendor>,
    /// Compile for this GPU; may be given several times. AMD's are named as in `RADV_FORCE_FAMILY` (by default
    /// navi21, gfx1100 and vega10), NVIDIA's as for ptxas (`sm_75`, `sm_89` and `sm_90`), Intel's as for ocloc (acm-g10).
    #[arg(long = "family", value_name = "NAME")]
    families: Vec<String>,
    /// Compile the shaders of this folder instead of the library's: .spv for AMD, .metal with .spv beside it for the
    /// others, as `cargo xtask shaders` writes them.
    #[arg(long, value_name = "FOLDER")]
    shaders: Option<PathBuf>,
    /// Compile for the one GPU that the environment names, and print JSON.
    #[arg(long, hide = true, requires = "shaders")]
    child: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Vendor {
    /// Mesa's RADV, from Debian
    Amd,
    /// NVIDIA's ptxas, from Python's package index
    Nvidia,
    /// Intel's graphics compiler, from Debian 12
    Intel,
}

impl Vendor {
    /// Whose GPU it is.
    fn of(family: &str) -> Self {
        match family {
            _ if family.starts_with("sm_") => Self::Nvidia,
            // AMD's have no dashes.
            _ if family.contains('-') => Self::Intel,
            _ => Self::Amd,
        }
    }

    /// The folder of its GPUs' shaders, as the suite names it.
    fn folder(self) -> &'static str {
        match self {
            Self::Amd => "amd",
            Self::Nvidia => "nvidia",
            Self::Intel => "intel",
        }
    }

    fn families(self) -> Vec<String> {
        match self {
            Self::Amd => amd::FAMILIES.map(str::to_owned).into(),
            Self::Nvidia => nvidia::FAMILIES.map(str::to_owned).into(),
            Self::Intel => intel::FAMILIES.map(str::to_owned).into(),
        }
    }

    /// Fetches its compiler. Where that cannot be had, the others still can.
    fn install(self, implementations: &Path) -> Result<(), String> {
        match self {
            Self::Amd => amd::install().map(drop),
            Self::Nvidia => implementation::cuda(implementations).map(drop),
            Self::Intel => implementation::opencl(implementations).map(drop),
        }
    }

    fn compile(self, root: &Path, families: &[String], shaders: &Shaders) -> Result<Vec<Gpu>, String> {
        let folder = shaders.of(self);
        match self {
            Self::Amd => amd::compile(families, &folder),
            Self::Nvidia => nvidia::compile(root, families, &files(&folder, "metal")?),
            Self::Intel => intel::compile(root, families, &files(&folder, "metal")?),
        }
    }
}

/// The folder of what is compiled.
struct Shaders {
    folder: PathBuf,
    /// Whether they are the library's, in a folder for each vendor: plans know whose GPU they are for.
    own: bool,
}

impl Shaders {
    fn of(&self, vendor: Vendor) -> PathBuf {
        if self.own { self.folder.join(vendor.folder()) } else { self.folder.clone() }
    }
}

/// A column of the tables: its heading, what the compiler calls it, and whether small is bad.
struct Column {
    heading: &'static str,
    statistic: &'static str,
    small_is_bad: bool,
}

const fn column(heading: &'static str, statistic: &'static str) -> Column {
    Column { heading, statistic, small_is_bad: false }
}

const IN_FLIGHT: &str = "Loads in flight";
const WAITS: &str = "Waits";
const ADDED_IN_FLIGHT: &str = "Added loads in flight";

/// Of the loops, for every GPU. Not every shader has them.
const LOOP_COLUMNS: [Column; 3] = [
    Column { heading: "in flight", statistic: IN_FLIGHT, small_is_bad: true },
    column("waits", WAITS),
    Column { heading: "added to", statistic: ADDED_IN_FLIGHT, small_is_bad: true },
];

/// What a compiler says of a shader, by the names it has for it.
type Statistics = BTreeMap<String, u64>;

/// What a shader became on a GPU.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
struct Compiled {
    /// By the names in `Column`.
    statistics: Statistics,
    loops: Vec<Loop>,
}

impl Compiled {
    fn new(mut statistics: Statistics, loops: Vec<Loop>) -> Self {
        let with = |role| loops.iter().filter(move |one| one.role == role);
        let found = [
            (IN_FLIGHT, with(Role::Sum).map(|one| one.in_flight).min()),
            (WAITS, with(Role::Sum).map(|one| one.waits).max()),
            (ADDED_IN_FLIGHT, with(Role::Add).map(|one| one.in_flight).min()),
        ];
        let found = found.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value? as u64)));
        statistics.extend(found);
        Self { statistics, loops }
    }
}

/// A GPU and what each shader became on it.
struct Gpu {
    name: String,
    /// With the compiler.
    title: String,
    columns: &'static [Column],
    /// The statistics that are zero unless a shader spills.
    spills: &'static [&'static str],
    shaders: BTreeMap<String, Compiled>,
}

/// Prints the tables, writes them into `target/isa`, and fails if a shader spills or waits too often.
pub(crate) fn run(root: &Path, options: &Options) -> Result<(), String> {
    let folder = root.join("target/isa");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let shaders = match &options.shaders {
        Some(shaders) if options.child => return amd::child(shaders),
        Some(shaders) => Shaders { folder: shaders.clone(), own: false },
        None => Shaders { folder: write_shaders(&folder)?, own: true },
    };
    println!(
        "The worst of each kernel. In flight: loads on their way when the first is needed, in the loops that"
    );
    println!(
        "multiply; waits: how often an iteration waits for memory; added to: in flight, of what is added to."
    );
    let (mut compiled, mut failures) = (Vec::new(), Vec::new());
    for &vendor in Vendor::value_variants() {
        let named = |family: &&String| Vendor::of(family) == vendor;
        let families = if options.families.is_empty() {
            vendor.families()
        } else {
            options.families.iter().filter(named).cloned().collect()
        };
        let wanted = options.vendors.contains(&vendor) || !options.families.is_empty();
        if families.is_empty() || !(wanted || options.vendors.is_empty()) {
            continue;
        }
        match vendor.install(&root.join("target/implementations")) {
            Ok(()) => {}
            Err(reason) if wanted => return Err(reason),
            Err(reason) => {
                println!("\n{vendor:?} is left out: {reason}");
                continue;
            }
        }
        let gpus = vendor.compile(root, &families, &shaders)?;
        for gpu in &gpus {
            gpu.report(&folder, options.all)?;
            failures.extend(demands::missed(gpu, shaders.own));
        }
        compiled.extend(gpus);
    }
    if compiled.is_empty() {
        return Err("no compiler could be had, so nothing is known".to_owned());
    }
    let summary = summary(&compiled, shaders.own);
    println!("\nIn flight / waits / added to:\n{summary}");
    write(&folder.join("loads.md"), &summary)?;
    if failures.is_empty() {
        println!("Every shader meets what is demanded of it.");
        return Ok(());
    }
    Err(format!("{}\nThe shaders' text lies in {}", failures.join("\n"), shaders.folder.display()))
}

/// The loops of each kernel on each GPU, in a table of Markdown; of the library's own shaders only those that are
/// planned.
fn summary(gpus: &[Gpu], own: bool) -> String {
    let worst: Vec<_> = gpus.iter().map(Gpu::worst).collect();
    let kernels: BTreeSet<_> =
        worst.iter().flat_map(BTreeMap::keys).filter(|name| !own || name.ends_with("_planned")).collect();
    let mut text = format!("| {:<24} |", "kernel");
    for gpu in gpus {
        let _ = write!(text, " {:<11} |", gpu.name);
    }
    let _ = write!(text, "\n|{}|{}", "-".repeat(26), format!("{}|", "-".repeat(13)).repeat(gpus.len()));
    for kernel in kernels {
        let cells: Vec<_> = worst.iter().map(|rows| in_short(rows.get(kernel))).collect();
        if cells.iter().all(|cell| *cell == in_short(None)) {
            continue;
        }
        let _ = write!(text, "\n| {:<24} |", if own { kernel.trim_end_matches("_planned") } else { kernel });
        for cell in cells {
            let _ = write!(text, " {cell:<11} |");
        }
    }
    text + "\n"
}

/// The numbers of the loops: `4 / 5 / 16`.
fn in_short(statistics: Option<&Statistics>) -> String {
    let number = |column: Column| match statistics.and_then(|row| row.get(column.statistic)) {
        Some(value) => value.to_string(),
        None => "-".to_owned(),
    };
    LOOP_COLUMNS.map(number).join(" / ")
}

impl Gpu {
    fn report(&self, folder: &Path, all: bool) -> Result<(), String> {
        for (shader, compiled) in &self.shaders {
            // A bar that looks at nothing would always be cleared.
            let missing =
                self.columns.iter().find(|column| !compiled.statistics.contains_key(column.statistic));
            if let Some(column) = missing {
                return Err(format!("{}: nothing is said of {} for {shader}", self.name, column.statistic));
            }
        }
        let rows = self.shaders.iter().map(|(name, compiled)| (name.clone(), compiled.statistics.clone()));
        let every = self.table("shader", &rows.collect());
        let worst = self.table("kernel", &self.worst());
        let title = format!("{}, {} shaders", self.title, self.shaders.len());
        println!("\n{title}\n{worst}");
        if all {
            println!("{every}");
        }
        let json = serde_json::json!({"gpu": self.title, "shaders": self.shaders});
        for (extension, text) in
            [("md", format!("# {title}\n\n{worst}\n{every}")), ("json", format!("{json:#}\n"))]
        {
            let file = folder.join(&self.name).with_added_extension(extension);
            write(&file, &text)?;
        }
        Ok(())
    }

    fn every_column(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().chain(&LOOP_COLUMNS)
    }

    /// The worst of each statistic over the shaders of a kernel, which need not be the same shader's.
    fn worst(&self) -> BTreeMap<String, Statistics> {
        let mut kernels: BTreeMap<String, Statistics> = BTreeMap::new();
        for (shader, compiled) in &self.shaders {
            let worst = kernels.entry(kernel(shader).to_owned()).or_default();
            for column in self.every_column() {
                let Some(&value) = compiled.statistics.get(column.statistic) else { continue };
                let worst = worst.entry(column.statistic.to_owned()).or_insert(value);
                *worst = if column.small_is_bad { value.min(*worst) } else { value.max(*worst) };
            }
        }
        kernels
    }

    /// A table in Markdown.
    fn table(&self, what: &str, rows: &BTreeMap<String, Statistics>) -> String {
        let mut text = format!("| {what:<30} |");
        for column in self.every_column() {
            let _ = write!(text, " {} |", column.heading);
        }
        let _ = write!(text, "\n|{}|", "-".repeat(32));
        for column in self.every_column() {
            let _ = write!(text, "{}:|", "-".repeat(column.heading.len() + 1));
        }
        for (name, statistics) in rows {
            let _ = write!(text, "\n| {name:<30} |");
            for column in self.every_column() {
                let value = statistics.get(column.statistic).map_or("-".to_owned(), u64::to_string);
                let _ = write!(text, " {value:>width$} |", width = column.heading.len());
            }
        }
        text + "\n"
    }
}

/// A shader's name without its number.
fn kernel(shader: &str) -> &str {
    shader.rsplit_once('_').map_or(shader, |(kernel, _)| kernel)
}

/// The library's shaders, as files: every kind for AMD's compiler, which is quick, and those that are planned for all.
fn write_shaders(folder: &Path) -> Result<PathBuf, String> {
    let shaders = folder.join("shaders");
    // Shaders of an earlier version are no concern of this one.
    let _ = fs::remove_dir_all(&shaders);
    let mut suite = suite_command();
    suite.arg("--shaders").arg(shaders.join(Vendor::Amd.folder())).arg("--planned-shaders").arg(&shaders);
    match suite.stdout(Stdio::null()).status() {
        Ok(status) if status.success() => Ok(shaders),
        Ok(status) => Err(format!("the shaders could not be written ({status})")),
        Err(error) => Err(format!("cargo could not be run: {error}")),
    }
}

/// The files of a folder with an extension, sorted; none is an error.
fn files(folder: &Path, extension: &str) -> Result<Vec<PathBuf>, String> {
    let unreadable = |error| format!("{} could not be read: {error}", folder.display());
    let entries =
        fs::read_dir(folder).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    let paths = entries.into_iter().map(|entry| entry.path());
    let mut paths: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|end| end == extension)).collect();
    paths.sort();
    if paths.is_empty() {
        return Err(format!("The folder {} has no .{extension} to compile.", folder.display()));
    }
    Ok(paths)
}

/// A folder with nothing in it but a header. What an earlier version left is no concern of this one.
fn folder_with(folder: PathBuf, header: &str, text: &str) -> Result<PathBuf, String> {
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    write(&folder.join(header), text)?;
    Ok(folder)
}

fn write(file: &Path, text: &str) -> Result<(), String> {
    fs::write(file, text).map_err(|error| format!("{}: {error}", file.display()))
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Does the work for every item on all processors; stops at the first error.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(&T) -> Result<R, String> + Sync,
) -> Result<Vec<R>, String> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let run = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let result = work(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(run);
        }
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().collect()
}

/// The number before some words: of `12 bytes spill stores`.
fn number_before(text: &str, words: &str) -> Option<u64> {
    let (before, _) = text.split_once(words)?;
    before.rsplit(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// The number after some words: of `simd_size:  16`.
fn number_after(text: &str, words: &str) -> Option<u64> {
    let (_, after) = text.split_once(words)?;
    after.trim_start().split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

/// The threads of a workgroup, which SPIR-V states and Metal does not.
fn threads(spir_v: &Path) -> Result<u32, String> {
    const HEADER: usize = 5;
    const OP_EXECUTION_MODE: u32 = 16;
    const LOCAL_SIZE: u32 = 17;
    let bytes = fs::read(spir_v).map_err(|error| format!("{}: {error}", spir_v.display()))?;
    let words: Vec<u32> = bytes.as_chunks().0.iter().copied().map(u32::from_le_bytes).collect();
    let mut rest = words.get(HEADER..).unwrap_or_default();
    // The high half of an instruction's first word is its length, the low half what it is.
    while let [first, ..] = rest
        && let Some((instruction, next)) = rest.split_at_checked((first >> 16).max(1) as usize)
    {
        if let [_, _, LOCAL_SIZE, x, y, z] = *instruction
            && first & 0xffff == OP_EXECUTION_MODE
        {
            return Ok(x * y * z);
        }
        rest = next;
    }
    Err(format!("{} does not say how many threads a workgroup has", spir_v.display()))
}
