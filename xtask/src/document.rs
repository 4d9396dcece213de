//! The sections of docs/benchmarks.md that commands write, each between two comments.

use std::path::Path;

/// The document, from the project's folder.
pub(crate) const PATH: &str = "docs/benchmarks.md";

/// Puts a section into the document, in place of an earlier one of the same name, or at the end.
pub(crate) fn replace(root: &Path, name: &str, section: &str) -> Result<(), String> {
    let path = root.join(PATH);
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let text = std::fs::read_to_string(&path).map_err(failed)?;
    let (begin, end) = (format!("<!-- begin {name} -->"), format!("<!-- end {name} -->"));
    let section = format!("{begin}\n\n{}\n\n{end}", section.trim_end());
    let text = match (text.find(&begin), text.find(&end)) {
        (Some(from), Some(to)) => format!("{}{section}{}", &text[..from], &text[to + end.len()..]),
        _ => format!("{}\n\n{section}\n", text.trim_end()),
    };
    std::fs::write(&path, text).map_err(failed)
}
