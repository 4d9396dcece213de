//! The Khronos validation layer, which Debian's Chromium carries newer than Debian itself.

use std::path::Path;

use super::{command, debian, swiftshader, variable};

const NAME: &str = "VK_LAYER_KHRONOS_validation";

/// What naga does and wgpu itself silences (<https://github.com/gfx-rs/wgpu/issues/7696>): types that
/// workgroup and storage memory share are laid out explicitly in both.
const KNOWN: &str = "VUID-StandaloneSpirv-None-10684";

pub(super) struct Layer {
    pub version: String,
    pub env: Vec<(String, String)>,
}

pub(super) fn provide(directory: &Path) -> Result<Layer, String> {
    let package = debian::unpack(swiftshader::PACKAGE, directory)?;
    let library = package.root.join("usr/lib/chromium/libVkLayer_khronos_validation.so");
    if !library.exists() {
        return Err(format!(
            "{} {} has no validation layer any more.",
            swiftshader::PACKAGE,
            package.version
        ));
    }
    let layers = command::create_directory(&directory.join("layers"))?;
    let manifest = format!(
        r#"{{"file_format_version": "1.2.0", "layer": {{
    "name": "{NAME}", "type": "GLOBAL", "library_path": {:?},
    "api_version": "1.4.0", "implementation_version": "1", "description": "Khronos validation layer",
    "instance_extensions": [{{"name": "VK_EXT_debug_utils", "spec_version": "1"}}]
}}}}"#,
        library.display().to_string()
    );
    command::write(&layers.join("validation.json"), manifest)?;
    let env = vec![
        variable("VK_LAYER_PATH", &layers),
        variable("VK_INSTANCE_LAYERS", NAME),
        // To standard output, even where wgpu listens: a log file is emptied by every new instance.
        variable("VK_LAYER_DEBUG_ACTION", "VK_DBG_LAYER_ACTION_LOG_MSG"),
        // Information is what shows that the layer is there.
        variable("VK_LAYER_REPORT_FLAGS", "error,warn,info"),
        variable("VK_LAYER_MESSAGE_ID_FILTER", KNOWN),
        variable("VK_LAYER_VALIDATE_SYNC", "true"),
        // Would be kept in the home directory.
        variable("VK_LAYER_CHECK_SHADERS_CACHING", "false"),
    ];
    Ok(Layer { version: format!("layer of {} {}", swiftshader::PACKAGE, package.version), env })
}

/// The layer's errors and warnings in what a process under it printed, two lines each. That the
/// layer said nothing at all is an error.
pub(crate) fn messages(output: &str) -> Result<Vec<String>, String> {
    if !output.contains("CURRENT-VALIDATION-ENABLED") {
        return Err("The validation layer was not loaded, or did not print to standard output.".to_owned());
    }
    let lines: Vec<&str> = output.lines().collect();
    let starts = ["Validation Error: [", "Validation Warning: [", "Validation Performance Warning: ["];
    Ok((0..lines.len())
        .filter(|&line| starts.iter().any(|start| lines[line].contains(start)))
        .map(|line| lines[line..lines.len().min(line + 2)].join("\n"))
        .collect())
}
