//! A shader in the languages that drivers take, as wgpu has naga write it: with bounds checks, but with
//! loops trusted and workgroup memory as it is found (`src/gpu/pipeline.rs`).

use std::fmt::Display;

use naga::back::{glsl, hlsl, msl, spv};
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{Module, ShaderStage};

/// A language that drivers take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    SpirV,
    Hlsl,
    Glsl,
    Msl,
}

impl Language {
    pub const ALL: [Self; 4] = [Self::SpirV, Self::Hlsl, Self::Glsl, Self::Msl];

    /// Those with integers of 64 bits.
    pub const WIDE: [Self; 3] = [Self::SpirV, Self::Hlsl, Self::Msl];

    /// Those with cooperative matrices that naga writes.
    pub const MATRICES: [Self; 1] = [Self::SpirV];

    /// The extension of its files.
    #[must_use]
    pub fn extension(self) -> &'static str {
        match self {
            Self::SpirV => "spv",
            Self::Hlsl => "hlsl",
            Self::Glsl => "comp",
            Self::Msl => "metal",
        }
    }
}

/// Parses and validates with no capability beyond WebGPU's own, of which naga counts `unpack2x16float`
/// and its like as one, and those that only devices with them are given.
///
/// # Errors
/// naga refuses it, with naga's reason.
pub fn validate(wgsl: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(wgsl).map_err(|error| error.emit_to_string(wgsl))?;
    let info = Validator::new(
        ValidationFlags::all(),
        Capabilities::SHADER_FLOAT16_IN_FLOAT32
            | Capabilities::SUBGROUP
            | Capabilities::SHADER_FLOAT16
            | Capabilities::SHADER_INT64
            | Capabilities::COOPERATIVE_MATRIX,
    )
    .validate(&module)
    .map_err(|error| error.emit_to_string(wgsl))?;
    Ok((module, info))
}

/// A shader in a language.
///
/// # Errors
/// naga cannot write it.
pub fn translate((module, info): &(Module, ModuleInfo), language: Language) -> Result<Vec<u8>, String> {
    let failed = |error: &dyn Display| format!("{language:?}: {error}");
    match language {
        Language::SpirV => spir_v(module, info).map_err(|error| failed(&error)),
        Language::Hlsl => hlsl(module, info).map(String::into_bytes).map_err(|error| failed(&error)),
        Language::Glsl => glsl(module, info).map(String::into_bytes).map_err(|error| failed(&error)),
        Language::Msl => msl(module, info).map(String::into_bytes).map_err(|error| failed(&error)),
    }
}

fn restricted() -> BoundsCheckPolicies {
    let policy = BoundsCheckPolicy::Restrict;
    BoundsCheckPolicies { index: policy, buffer: policy, image_load: policy, binding_array: policy }
}

fn spir_v(module: &Module, info: &ModuleInfo) -> Result<Vec<u8>, spv::Error> {
    let options = spv::Options {
        lang_version: (1, 3),
        // Drivers with robust access check buffers themselves.
        bounds_check_policies: BoundsCheckPolicies { buffer: BoundsCheckPolicy::Unchecked, ..restricted() },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ..Default::default()
    };
    let words = spv::write_vec(module, info, &options, None)?;
    Ok(words.into_iter().flat_map(u32::to_le_bytes).collect())
}

fn hlsl(module: &Module, info: &ModuleInfo) -> Result<String, hlsl::Error> {
    let options = hlsl::Options {
        // naga writes these shaders no differently for model 6.0, which DXC is given.
        shader_model: hlsl::ShaderModel::V5_1,
        restrict_indexing: true,
        // The size of the grid, for which HLSL has no word, comes after the groups, as wgpu puts it.
        special_constants_binding: Some(hlsl::BindTarget { space: groups(module), ..Default::default() }),
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        ..Default::default()
    };
    let mut text = String::new();
    hlsl::Writer::new(&mut text, &options, &hlsl::PipelineOptions::default()).write(module, info, None)?;
    Ok(text)
}

/// How many bind groups a shader has.
fn groups(module: &Module) -> u8 {
    let groups = module.global_variables.iter().filter_map(|(_, global)| Some(global.binding?.group + 1));
    groups.max().unwrap_or(0).try_into().unwrap_or(u8::MAX)
}

/// naga checks no bounds in GLSL but those of images.
fn glsl(module: &Module, info: &ModuleInfo) -> Result<String, glsl::Error> {
    let options = glsl::Options {
        version: glsl::Version::new_gles(310),
        zero_initialize_workgroup_memory: false,
        ..Default::default()
    };
    let pipeline = glsl::PipelineOptions {
        shader_stage: ShaderStage::Compute,
        entry_point: "main".to_owned(),
        multiview: None,
    };
    let mut text = String::new();
    let unchecked = BoundsCheckPolicies::default();
    glsl::Writer::new(&mut text, module, info, &options, &pipeline, unchecked)?.write()?;
    Ok(text)
}

fn msl(module: &Module, info: &ModuleInfo) -> Result<String, msl::Error> {
    let options = msl::Options {
        lang_version: (2, 0),
        bounds_check_policies: restricted(),
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: false,
        ..Default::default()
    };
    msl::write_string(module, info, &options, &msl::PipelineOptions::default()).map(|(text, _)| text)
}
