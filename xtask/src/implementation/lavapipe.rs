//! Mesa's software Vulkan driver, with every subgroup size it can have, of which one is under the validation
//! layer.

use std::path::Path;

use super::{Implementation, command, debian, swiftshader, validation, variable};

const ICD: &str = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json";

pub(super) fn provide(directory: &Path) -> Result<Vec<Implementation>, String> {
    let version = debian::install(&["mesa-vulkan-drivers"])?;
    if !Path::new(ICD).exists() {
        return Err(format!("mesa-vulkan-drivers is installed without {ICD}, lavapipe's manifest."));
    }
    let env = swiftshader::env(Path::new(ICD));
    // Mesa creates a cache's folder, but not the folder that it lies in.
    let caches = command::create_directory(&directory.join("shader-cache"))?;
    let mut implementations = [(4, 128), (8, 256), (16, 512)].map(|(subgroup, bits)| {
        let name = format!("lavapipe-subgroup{subgroup}");
        let width = variable("LP_NATIVE_VECTOR_WIDTH", bits.to_string());
        // A shader from a shared cache would be one compiled for another vector width.
        let cache = variable("MESA_SHADER_CACHE_DIR", caches.join(&name));
        // The adapter's name has the width, so that a driver with another is not taken for this one.
        let adapter = variable("WGPU_ADAPTER_NAME", format!("{bits} bits"));
        let env = env.iter().cloned().chain([width, cache, adapter]).collect();
        Implementation { name, version: version.clone(), env }
    });
    let layer = validation::provide(directory)?;
    let [_, validated, _] = &mut implementations;
    validated.name += "-validation";
    validated.version = format!("{version}, {}", layer.version);
    validated.env.extend(layer.env);
    Ok(implementations.into())
}
