//! Google's software Vulkan driver, which Debian's Chromium carries.

use std::path::Path;

use super::{Implementation, command, debian, variable};

/// The package with Chromium's libraries; Chromium itself is not needed.
pub(super) const PACKAGE: &str = "chromium-common";

pub(super) fn provide(directory: &Path) -> Result<Implementation, String> {
    // The loader.
    debian::install(&["libvulkan1"])?;
    let package = debian::unpack(PACKAGE, directory)?;
    let library = package.root.join("usr/lib/chromium/libvk_swiftshader.so");
    if !library.exists() {
        return Err(format!("{PACKAGE} {} has no libvk_swiftshader.so any more.", package.version));
    }
    // Chromium's own manifest names the library relative to Chromium's working directory.
    let icd = directory.join("swiftshader.json");
    let manifest = format!(
        r#"{{"file_format_version": "1.0.0", "ICD": {{"library_path": {:?}, "api_version": "1.3.0"}}}}"#,
        library.display().to_string()
    );
    command::write(&icd, manifest)?;
    Ok(Implementation {
        name: "swiftshader".to_owned(),
        version: format!("{PACKAGE} {}", package.version),
        env: env(&icd),
    })
}

/// Leaves wgpu and Dawn only the Vulkan driver of this manifest.
pub(super) fn env(icd: &Path) -> Vec<(String, String)> {
    // VK_ICD_FILENAMES is what loaders before 1.3.207 know.
    vec![
        variable("WGPU_BACKEND", "vulkan"),
        variable("VK_DRIVER_FILES", icd),
        variable("VK_ICD_FILENAMES", icd),
    ]
}
