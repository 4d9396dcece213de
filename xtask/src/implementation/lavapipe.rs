//! Mesa's software Vulkan driver, with every subgroup size it can have, and once more under the
//! validation layer.

use std::path::Path;

use super::{Implementation, debian, swiftshader, validation};

const ICD: &str = "/usr/share/vulkan/icd.d/lvp_icd.x86_64.json";

pub(super) fn provide(directory: &Path) -> Result<Vec<Implementation>, String> {
    let version = debian::install(&["mesa-vulkan-drivers"])?;
    if !Path::new(ICD).exists() {
        return Err(format!("mesa-vulkan-drivers is installed without {ICD}, lavapipe's manifest."));
    }
    let mut env = swiftshader::env(Path::new(ICD));
    // A cached shader would be one compiled for another vector width.
    env.push(("MESA_SHADER_CACHE_DISABLE".to_owned(), "true".to_owned()));
    let mut implementations: Vec<_> = [(4, 128), (8, 256), (16, 512)]
        .map(|(subgroup, bits)| {
            let width = ("LP_NATIVE_VECTOR_WIDTH".to_owned(), bits.to_string());
            let env = env.iter().cloned().chain([width]).collect();
            Implementation { name: format!("lavapipe-subgroup{subgroup}"), version: version.clone(), env }
        })
        .into();
    let layer = validation::provide(directory)?;
    env.extend(layer.env);
    implementations.push(Implementation {
        name: "lavapipe-validation".to_owned(),
        version: format!("{version}, {}", layer.version),
        env,
    });
    Ok(implementations)
}
