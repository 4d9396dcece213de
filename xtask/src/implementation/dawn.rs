//! Dawn, Chromium's WebGPU with its own shader compiler, as a Node package. `tests/conformance/src/native/dawn.mjs`
//! is its other half.

use std::path::Path;

use super::npm::WEBGPU;
use super::{Implementation, swiftshader, variable};

/// Dawn on `SwiftShader`: it refuses the lavapipe of Debian 12.
pub(super) fn provide(directory: &Path) -> Result<Implementation, String> {
    let driver = swiftshader::provide(directory)?;
    let mut implementation = implementation("dawn", "vulkan", directory)?;
    implementation.version = format!("{} on SwiftShader of {}", WEBGPU.version, driver.version);
    implementation.env.extend(driver.env);
    Ok(implementation)
}

/// Dawn without a driver: it checks shaders and commands, and runs nothing.
pub(super) fn provide_null(directory: &Path) -> Result<Implementation, String> {
    implementation("dawn-null", "null", directory)
}

fn implementation(name: &str, backend: &str, directory: &Path) -> Result<Implementation, String> {
    let modules = WEBGPU.install(directory)?;
    let env = vec![variable("HYDRALORA_DAWN", modules), variable("HYDRALORA_DAWN_BACKEND", backend)];
    Ok(Implementation { name: name.to_owned(), version: WEBGPU.version.to_owned(), env })
}
