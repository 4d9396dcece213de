//! `cargo xtask roofline`: measures this device, and puts the tables and the plot into the documentation.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::{Profile, cargo, document, driver};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Use the report in this folder, which the bundle's hydralora-roofline wrote on another machine, and
    /// measure nothing
    #[arg(long, value_name = "FOLDER")]
    from: Option<PathBuf>,
    /// Options of the measurement: --shape, --grid, --element, --rounds, --also; `-- --help` describes them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    options: Vec<OsString>,
}

pub(crate) fn run(root: &Path, options: Options) -> Result<(), String> {
    let help = options.options.iter().any(|option| option == "--help" || option == "-h");
    let folder = if let Some(folder) = options.from {
        folder
    } else {
        if !help {
            driver::ensure(Profile::Release)?;
        }
        let folder = root.join("target/roofline");
        let mut arguments = vec!["--out".into(), folder.clone().into_os_string()];
        arguments.extend(options.options);
        cargo(&["bench", "--bench", "roofline", "--"], &arguments)?;
        folder
    };
    if help { Ok(()) } else { publish(root, &folder) }
}

/// Puts a report into the document, and replaces an earlier one of the same device.
fn publish(root: &Path, folder: &Path) -> Result<(), String> {
    let failed = |path: &Path, error: std::io::Error| format!("{}: {error}", path.display());
    let read = |path: PathBuf| std::fs::read_to_string(&path).map_err(|error| failed(&path, error));
    let report: Value = serde_json::from_str(&read(folder.join("report.json"))?)
        .map_err(|error| format!("{} holds no report: {error}", folder.display()))?;
    let device = report["device"].as_str().ok_or("the report names no device")?;
    let name = device.split(" (").next().unwrap_or(device);
    let slug: String = name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let slug = slug.to_lowercase();
    let section = format!(
        "## {name}\n\n{}\n![Roofline of {name}](images/roofline-{slug}.png)",
        read(folder.join("report.md"))?
    );
    document::replace(root, &slug, &section)?;
    let picture = root.join(format!("docs/images/roofline-{slug}.png"));
    std::fs::copy(folder.join("roofline.png"), &picture).map_err(|error| failed(&picture, error))?;
    println!("{name} is now in {} and {}", document::PATH, picture.display());
    Ok(())
}
