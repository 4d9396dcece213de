//! Every shader, as wgpu gives it to each driver, written to files for the compilers of others.

use std::path::Path;

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use serde::Serialize;

use hydralora::shader::BindingKind;

use crate::permutations::permutations;

/// A line of the list of shaders.
#[derive(Serialize)]
struct Entry {
    name: String,
    label: &'static str,
    /// What the storage buffers are, from binding 1 on: "read" or "write".
    bindings: Vec<&'static str>,
}

/// Writes `NAME.wgsl`, `.spv`, `.hlsl`, `.comp` (GLSL) and `.metal` for every shader, and
/// `shaders.json`, a list of what each binds.
pub fn write(folder: &Path) -> Result<usize, String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut sources: Vec<_> = permutations().iter().map(hydralora::shader::Shader::source).collect();
    sources.sort_by(|a, b| a.wgsl.cmp(&b.wgsl));
    let mut list = Vec::new();
    for (index, source) in sources.iter().enumerate() {
        let name = format!("{}_{index:03}", source.label);
        let save = |extension: &str, bytes: &[u8]| {
            let file = folder.join(format!("{name}.{extension}"));
            std::fs::write(&file, bytes).map_err(|error| format!("{}: {error}", file.display()))
        };
        let failed = |language: &str, error: &dyn std::fmt::Display| format!("{name} to {language}: {error}");
        save("wgsl", source.wgsl.as_bytes())?;
        let module = naga::front::wgsl::parse_str(&source.wgsl).map_err(|error| failed("naga", &error))?;
        let info = Validator::new(ValidationFlags::all(), Capabilities::empty())
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
        let kinds = source.bindings.iter().filter_map(|binding| match binding.kind {
            BindingKind::Uniform => None,
            BindingKind::Read => Some("read"),
            BindingKind::Write => Some("write"),
        });
        list.push(Entry { name, label: source.label, bindings: kinds.collect() });
    }
    let text = serde_json::to_string_pretty(&list).map_err(|error| error.to_string())?;
    std::fs::write(folder.join("shaders.json"), text).map_err(|error| error.to_string())?;
    Ok(list.len())
}

/// What wgpu asks of naga for Vulkan: reads out of bounds are restricted, where the device does not do
/// that itself, and loops are trusted (`src/pipeline.rs`).
fn spir_v(module: &naga::Module, info: &naga::valid::ModuleInfo) -> Result<Vec<u8>, spv::Error> {
    let restricted = BoundsCheckPolicy::Restrict;
    let options = spv::Options {
        lang_version: (1, 3),
        bounds_check_policies: BoundsCheckPolicies {
            index: restricted,
            buffer: restricted,
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
