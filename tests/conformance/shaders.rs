//! Every shader by itself: compiled by devices that run nothing, and written to files, as wgpu gives it
//! to each driver, for the compilers of other platforms.

use std::path::Path;
use std::sync::Arc;

use hydralora::shader::{Shader, Source};
use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};

use crate::device::Device;
use crate::permutations::permutations;
use crate::suite::Plan;

/// Every shader with a name, in an order that does not change.
fn named() -> Vec<(String, Shader)> {
    let mut shaders: Vec<_> = permutations().into_iter().map(|shader| (shader.source(), shader)).collect();
    shaders.sort_by(|(a, _), (b, _)| (a.label, &a.wgsl).cmp(&(b.label, &b.wgsl)));
    let named = |(index, (source, shader)): (usize, (Source, Shader))| {
        (format!("{}_{index:03}", source.label), shader)
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
    named().into_iter().map(plan).collect()
}

/// Writes `NAME.wgsl`, `.spv`, `.hlsl`, `.comp` (GLSL) and `.metal` for every shader.
pub fn write(folder: &Path) -> Result<usize, String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let shaders = named();
    for (name, shader) in &shaders {
        let source = shader.source();
        let save = |extension: &str, bytes: &[u8]| {
            let file = folder.join(format!("{name}.{extension}"));
            std::fs::write(&file, bytes).map_err(|error| format!("{}: {error}", file.display()))
        };
        let failed = |language: &str, error: &dyn std::fmt::Display| format!("{name} to {language}: {error}");
        save("wgsl", source.wgsl.as_bytes())?;
        let module = naga::front::wgsl::parse_str(&source.wgsl).map_err(|error| failed("naga", &error))?;
        let info = Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32)
            .validate(&module)
            .map_err(|error| failed("naga", &error))?;
        save("spv", &spir_v(&module, &info).map_err(|error| failed("SPIR-V", &error))?)?;
        save("hlsl", hlsl_text(&module, &info).map_err(|error| failed("HLSL", &error))?.as_bytes())?;
        save("comp", glsl_text(&module, &info).map_err(|error| failed("GLSL", &error))?.as_bytes())?;
        let options = msl::Options {
            lang_version: (2, 0),
            zero_initialize_workgroup_memory: false,
            ..Default::default()
        };
        let (text, _) = msl::write_string(&module, &info, &options, &msl::PipelineOptions::default())
            .map_err(|error| failed("MSL", &error))?;
        save("metal", text.as_bytes())?;
    }
    Ok(shaders.len())
}

/// What wgpu asks of naga for Vulkan: indices are restricted to their bounds, but for those of buffers,
/// which drivers with robust access check themselves; loops are trusted (`src/pipeline.rs`).
fn spir_v(module: &naga::Module, info: &naga::valid::ModuleInfo) -> Result<Vec<u8>, spv::Error> {
    let restricted = BoundsCheckPolicy::Restrict;
    let options = spv::Options {
        lang_version: (1, 3),
        bounds_check_policies: BoundsCheckPolicies {
            index: restricted,
            buffer: BoundsCheckPolicy::Unchecked,
            image_load: restricted,
            binding_array: restricted,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ..Default::default()
    };
    let words = spv::write_vec(module, info, &options, None)?;
    Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
}

fn hlsl_text(module: &naga::Module, info: &naga::valid::ModuleInfo) -> Result<String, hlsl::Error> {
    let options = hlsl::Options {
        shader_model: hlsl::ShaderModel::V5_1,
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        fake_missing_bindings: true,
        ..Default::default()
    };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default()).write(module, info, None)?;
    Ok(text)
}

fn glsl_text(module: &naga::Module, info: &naga::valid::ModuleInfo) -> Result<String, glsl::Error> {
    let options = glsl::Options {
        version: glsl::Version::new_gles(310),
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: "main".to_owned(),
        multiview: None,
    };
    let mut text = String::new();
    glsl::Writer::new(&mut text, module, info, &options, &pipeline, BoundsCheckPolicies::default())?
        .write()?;
    Ok(text)
}
