//! The library's options as JavaScript writes them: names in camelCase, and what has a default may be left out. serde
//! holds each list of fields and variants to the library's.

use hydralora::wgpu::{self, AdapterInfo, Backend, DeviceType};
use hydralora::{
    AdamWHyper, BackwardInputOptions, BackwardParamsOptions, Capacity, Config, Dropout, DropoutOf, Element,
    ForwardOptions, GateGradient, GateGradientsOptions, GateLossesOptions, GateRows, GroupHyper, Groups,
    LinearDirection, LinearOptions, Operation, Plans, Router, Sharing, Weighting, WriteMode,
};
use serde::{Deserialize, Deserializer};

#[derive(Deserialize)]
#[serde(remote = "Element", rename_all = "camelCase")]
enum ElementNames {
    F32,
    F16,
    Bf16,
}

#[derive(Deserialize)]
#[serde(remote = "WriteMode", rename_all = "camelCase")]
enum WriteModeNames {
    Overwrite,
    Accumulate,
}

#[derive(Deserialize)]
#[serde(remote = "GateRows", rename_all = "camelCase")]
enum GateRowsNames {
    Token,
    Sequence(u32),
    Batch,
}

#[derive(Deserialize)]
#[serde(remote = "GateGradient", rename_all = "camelCase")]
enum GateGradientNames {
    Weights(#[serde(with = "GateRowsNames")] GateRows),
    Logits(#[serde(with = "GateRowsNames")] GateRows),
    Losses,
}

#[derive(Deserialize)]
#[serde(remote = "LinearDirection", rename_all = "camelCase")]
enum LinearDirectionNames {
    Forward,
    Backward,
}

#[derive(Deserialize)]
#[serde(remote = "Router", rename_all = "camelCase")]
enum RouterNames {
    Input,
    Latent,
    GivenWeights,
    GivenLogits,
}

#[derive(Deserialize)]
#[serde(remote = "Sharing", rename_all = "camelCase")]
enum SharingNames {
    Shared,
    Separate,
}

#[derive(Deserialize)]
#[serde(remote = "Weighting", rename_all = "camelCase")]
enum WeightingNames {
    Softmax,
    TopK { k: u32, renormalise: bool },
    Sigmoid,
    NormalisedSigmoid,
}

#[derive(Deserialize)]
#[serde(remote = "DropoutOf", rename_all = "camelCase")]
enum DropoutOfNames {
    Input,
    Latent,
}

#[derive(Deserialize)]
#[serde(remote = "Dropout", rename_all = "camelCase", deny_unknown_fields)]
struct DropoutFields {
    probability: f32,
    #[serde(default, with = "DropoutOfNames")]
    of: DropoutOf,
    #[serde(default)]
    stream: u32,
}

#[derive(Deserialize)]
#[serde(remote = "Config", rename_all = "camelCase", default = "Config::default", deny_unknown_fields)]
pub(crate) struct ConfigFields {
    d_in: u32,
    d_out: u32,
    rank: u32,
    experts: u32,
    scaling: f32,
    #[serde(with = "RouterNames")]
    router: Router,
    #[serde(with = "SharingNames")]
    a: Sharing,
    #[serde(with = "WeightingNames")]
    weighting: Weighting,
    router_bias: bool,
    temperature: f32,
    logsumexp: bool,
    #[serde(deserialize_with = "dropout")]
    dropout: Option<Dropout>,
}

fn dropout<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Dropout>, D::Error> {
    #[derive(Deserialize)]
    struct Given(#[serde(with = "DropoutFields")] Dropout);
    Ok(Option::deserialize(deserializer)?.map(|Given(dropout)| dropout))
}

#[derive(Deserialize)]
#[serde(
    remote = "ForwardOptions",
    rename_all = "camelCase",
    default = "Default::default",
    deny_unknown_fields
)]
struct ForwardFields {
    #[serde(with = "WriteModeNames")]
    write: WriteMode,
    save: bool,
    #[serde(with = "ElementNames")]
    x: Element,
    x_stride: Option<u32>,
    #[serde(with = "ElementNames")]
    parameters: Element,
    #[serde(with = "ElementNames")]
    y: Element,
    y_stride: Option<u32>,
    #[serde(with = "GateRowsNames")]
    gates: GateRows,
    mask: bool,
}

#[derive(Deserialize)]
#[serde(
    remote = "BackwardInputOptions",
    rename_all = "camelCase",
    default = "Default::default",
    deny_unknown_fields
)]
struct BackwardInputFields {
    #[serde(with = "ElementNames")]
    g: Element,
    g_stride: Option<u32>,
    #[serde(deserialize_with = "dx")]
    dx: Option<(Element, WriteMode)>,
    dx_stride: Option<u32>,
    #[serde(deserialize_with = "gate_gradient")]
    gate_gradient: Option<GateGradient>,
    mask: bool,
}

fn dx<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<(Element, WriteMode)>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Given {
        #[serde(default, with = "ElementNames")]
        element: Element,
        #[serde(default, with = "WriteModeNames")]
        write: WriteMode,
    }
    Ok(Option::deserialize(deserializer)?.map(|Given { element, write }| (element, write)))
}

fn gate_gradient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<GateGradient>, D::Error> {
    #[derive(Deserialize)]
    struct Given(#[serde(with = "GateGradientNames")] GateGradient);
    Ok(Option::deserialize(deserializer)?.map(|Given(gradient)| gradient))
}

#[derive(Deserialize)]
#[serde(
    remote = "BackwardParamsOptions",
    rename_all = "camelCase",
    default = "Default::default",
    deny_unknown_fields
)]
struct BackwardParamsFields {
    #[serde(with = "WriteModeNames")]
    write: WriteMode,
    #[serde(with = "ElementNames")]
    x: Element,
    x_stride: Option<u32>,
    #[serde(with = "ElementNames")]
    g: Element,
    g_stride: Option<u32>,
    mask: bool,
}

#[derive(Deserialize)]
#[serde(
    remote = "LinearOptions",
    rename_all = "camelCase",
    default = "Default::default",
    deny_unknown_fields
)]
struct LinearFields {
    #[serde(with = "LinearDirectionNames")]
    direction: LinearDirection,
    bias: bool,
    #[serde(with = "WriteModeNames")]
    write: WriteMode,
    #[serde(with = "ElementNames")]
    source: Element,
    source_stride: Option<u32>,
    #[serde(with = "ElementNames")]
    weight: Element,
    #[serde(with = "ElementNames")]
    target: Element,
    target_stride: Option<u32>,
}

#[derive(Deserialize)]
#[serde(remote = "GateGradientsOptions", default = "Default::default", deny_unknown_fields)]
struct GateGradientsFields {
    #[serde(with = "GateRowsNames")]
    rows: GateRows,
}

#[derive(Deserialize)]
#[serde(remote = "GateLossesOptions", default = "Default::default", deny_unknown_fields)]
struct GateLossesFields {
    balance: f32,
    spread: f32,
    z: f32,
    mask: bool,
}

#[derive(Deserialize)]
#[serde(remote = "Operation", rename_all = "camelCase")]
pub(crate) enum OperationNames {
    Forward(#[serde(with = "ForwardFields")] ForwardOptions),
    BackwardInput(#[serde(with = "BackwardInputFields")] BackwardInputOptions),
    BackwardParams(#[serde(with = "BackwardParamsFields")] BackwardParamsOptions),
    Linear(#[serde(with = "LinearFields")] LinearOptions),
    GateGradients(#[serde(with = "GateGradientsFields")] GateGradientsOptions),
    GateLosses(#[serde(with = "GateLossesFields")] GateLossesOptions),
}

#[derive(Deserialize)]
#[serde(remote = "Plans", rename_all = "camelCase")]
enum PlansNames {
    Several,
    One,
    Invariant,
}

#[derive(Deserialize)]
#[serde(remote = "Capacity", deny_unknown_fields)]
pub(crate) struct CapacityFields {
    tokens: u32,
    #[serde(default, with = "PlansNames")]
    plans: Plans,
}

#[derive(Deserialize)]
#[serde(remote = "AdamWHyper", rename_all = "camelCase", default = "Default::default", deny_unknown_fields)]
pub(crate) struct HyperFields {
    beta1: f32,
    beta2: f32,
    epsilon: f32,
    weight_decay: f32,
    max_norm: Option<f32>,
    #[serde(with = "GroupsFields")]
    groups: Groups,
}

#[derive(Deserialize)]
#[serde(remote = "Groups", default = "Default::default", deny_unknown_fields)]
struct GroupsFields {
    #[serde(with = "GroupFields")]
    a: GroupHyper,
    #[serde(with = "GroupFields")]
    b: GroupHyper,
    #[serde(with = "GroupFields")]
    router: GroupHyper,
}

#[derive(Deserialize)]
#[serde(remote = "GroupHyper", rename_all = "camelCase", default = "Default::default", deny_unknown_fields)]
struct GroupFields {
    rate: f32,
    weight_decay: Option<f32>,
}

/// What the planner has to know of a `GPUDevice`.
#[derive(Deserialize)]
pub(crate) struct Device {
    pub(crate) limits: Limits,
    pub(crate) info: Info,
}

/// The `GPUSupportedLimits` that plans depend on.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::struct_field_names, reason = "they are WebGPU's")]
pub(crate) struct Limits {
    max_buffer_size: u64,
    max_storage_buffer_binding_size: u64,
    max_storage_buffers_per_shader_stage: u32,
    max_compute_workgroup_storage_size: u32,
    max_compute_invocations_per_workgroup: u32,
    max_compute_workgroup_size_x: u32,
    max_compute_workgroups_per_dimension: u32,
}

impl Limits {
    /// The same as wgpu has limits.
    pub(crate) fn of_wgpu(&self) -> wgpu::Limits {
        wgpu::Limits {
            max_buffer_size: self.max_buffer_size,
            max_storage_buffer_binding_size: self.max_storage_buffer_binding_size,
            max_storage_buffers_per_shader_stage: self.max_storage_buffers_per_shader_stage,
            max_compute_workgroup_storage_size: self.max_compute_workgroup_storage_size,
            max_compute_invocations_per_workgroup: self.max_compute_invocations_per_workgroup,
            max_compute_workgroup_size_x: self.max_compute_workgroup_size_x,
            max_compute_workgroups_per_dimension: self.max_compute_workgroups_per_dimension,
            ..wgpu::Limits::default()
        }
    }
}

/// A `GPUAdapterInfo`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Info {
    vendor: String,
    architecture: String,
    description: String,
    /// Newer than the rest.
    #[serde(default)]
    is_fallback_adapter: bool,
}

impl Info {
    /// The same as wgpu describes adapters. A browser tells the vendor, and the library takes the class from it.
    pub(crate) fn of_wgpu(self) -> AdapterInfo {
        let software = self.is_fallback_adapter || self.architecture == "swiftshader";
        let vendor = match self.vendor.as_str() {
            "nvidia" => 0x10de,
            "amd" => 0x1002,
            "intel" => 0x8086,
            "apple" => 0x106b,
            "arm" => 0x13b5,
            "qualcomm" => 0x5143,
            "img-tec" => 0x1010,
            "samsung" => 0x144d,
            _ => 0,
        };
        let kind = if software { DeviceType::Cpu } else { DeviceType::Other };
        AdapterInfo { name: self.description, vendor, ..AdapterInfo::new(kind, Backend::BrowserWebGpu) }
    }
}
