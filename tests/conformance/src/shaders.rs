//! Every shader separately: compiled by devices that run nothing, and written to files for the compilers of
//! other platforms, in the translations that wgpu gives to each driver.

use std::path::Path;
use std::sync::Arc;

use hydralora::kernel::{Shader, Source};

use crate::device::Device;
use crate::permutations::translate::{translate, validate};
use crate::permutations::{permutations, with_subgroups};
use crate::suite::Plan;

/// Shaders with names, in a fixed order.
fn named(shaders: Vec<Shader>, suffix: &str) -> Vec<(String, Shader)> {
    let mut shaders: Vec<_> = shaders.into_iter().map(|shader| (shader.source(), shader)).collect();
    shaders.sort_by(|(a, _), (b, _)| (a.label, &a.wgsl).cmp(&(b.label, &b.wgsl)));
    let named = |(index, (source, shader)): (usize, (Source, Shader))| {
        (format!("{}{suffix}_{index:03}", source.label), shader)
    };
    shaders.into_iter().enumerate().map(named).collect()
}

/// A trial for every shader, on a device that only compiles.
pub fn plans(device: &Arc<dyn Device>) -> Vec<Plan> {
    let plan = |(name, shader): (String, Shader)| {
        let device = Arc::clone(device);
        Plan::new(format!("shaders/{name}"), shader.source().label, move || {
            device.compile(&shader).map(|()| None)
        })
    };
    named(permutations(), "").into_iter().map(plan).collect()
}

/// Writes `NAME.wgsl`, `.spv`, `.hlsl`, `.comp` (GLSL) and `.metal` for every shader. The names of shaders
/// with subgroup operations, which not every compiler knows, contain `_subgroups_`.
pub fn write(folder: &Path) -> Result<usize, String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let save = |name: &str, extension: &str, contents: &[u8]| {
        let file = folder.join(format!("{name}.{extension}"));
        std::fs::write(&file, contents).map_err(|error| format!("{}: {error}", file.display()))
    };
    let shaders = [named(permutations(), ""), named(with_subgroups(), "_subgroups")].concat();
    for (name, shader) in &shaders {
        let wgsl = shader.source().wgsl;
        save(name, "wgsl", wgsl.as_bytes())?;
        let translations = validate(&wgsl).and_then(|valid| translate(&valid));
        for (extension, contents) in translations.map_err(|error| format!("{name}: {error}"))? {
            save(name, extension, &contents)?;
        }
    }
    Ok(shaders.len())
}
