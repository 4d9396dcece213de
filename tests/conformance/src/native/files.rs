//! The results of a run as files.

use std::path::Path;

use crate::report::Report;

/// Writes `<adapter>.json` and `<adapter>.md` for each adapter.
pub fn write_folder(report: &Report, folder: &Path) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(failed)?;
    for adapter in report.adapters() {
        let report = report.of(&adapter);
        let implementation =
            report.identities.first().and_then(|identity| identity.implementation.as_deref());
        let stem = file_name(&[implementation, Some(&adapter)]);
        std::fs::write(folder.join(format!("{stem}.md")), report.markdown(&adapter)).map_err(failed)?;
        write_json(&report, &folder.join(format!("{stem}.json")))?;
        println!("written: {}", folder.join(format!("{stem}.{{md,json}}")).display());
    }
    Ok(())
}

/// Writes everything to one file.
pub fn write_json(report: &Report, file: &Path) -> Result<(), String> {
    std::fs::write(file, report.json()?).map_err(|error| format!("{}: {error}", file.display()))
}

fn file_name(parts: &[Option<&str>]) -> String {
    let name = parts.iter().flatten().copied().collect::<Vec<_>>().join("-");
    let words: Vec<&str> =
        name.split(|c: char| !(c.is_alphanumeric() || c == '.')).filter(|w| !w.is_empty()).collect();
    words.join("-")
}
