//! The goldens' files, which are part of the executable. `HYDRALORA_GOLDENS=DIR` reads such files from another
//! directory.

use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};

use crate::goldens::File;

static OWN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/goldens");

/// The names and contents of the goldens.
pub fn files() -> Result<Vec<File>, String> {
    match std::env::var_os("HYDRALORA_GOLDENS").map(PathBuf::from) {
        Some(directory) => read(&directory),
        None => Ok(OWN
            .files()
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "safetensors"))
            .map(|file| (stem(file.path()), file.contents().to_vec()))
            .collect()),
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Every *.safetensors file directly in `directory`, sorted by name.
///
/// # Errors
/// There is no such file, or one cannot be read.
pub fn read(directory: &Path) -> Result<Vec<File>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push((stem(&path), std::fs::read(&path).map_err(failed)?));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("no *.safetensors in {}: nothing would be tested", directory.display()));
    }
    Ok(files)
}
