//! What the suite runs on: wgpu's adapters, each with several sets of limits, and Dawn.

use std::time::{Duration, Instant};

use hydralora::device::{Gpu, adapters_from_env};
use hydralora::kernel::Shader;
use hydralora::{DeviceProfile, Error, Kernels, Planner, Tuning, wgpu};
use serde::Serialize;

use crate::case::Planning;
use crate::job::{Job, Memory};
use crate::op::Prepared;

/// Why a job gave no results.
#[derive(Debug)]
pub enum Failure {
    /// The device cannot run this, and the text says why: what the library refused it with.
    Unsupported(String),
    /// Something that should have worked did not.
    Failed(String),
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self::Failed(message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::OverLimit { .. } => Self::Unsupported(error.to_string()),
            error => Self::Failed(error.to_string()),
        }
    }
}

/// Who a device is, for reports.
#[derive(Debug, Clone, Serialize)]
pub struct Identity {
    /// Backend and adapter, such as `Vulkan/llvmpipe (LLVM 15.0.6, 256 bits)`.
    pub adapter: String,
    /// The implementation under test and its version, where the caller named one.
    pub implementation: Option<String>,
    pub driver: String,
    pub kind: String,
    /// Which limits the device was requested with.
    pub limits_of: &'static str,
    pub features: String,
    /// The limits that count for compute.
    pub limits: Vec<(&'static str, u64)>,
}

impl Identity {
    /// The device's name in the names of cases.
    pub fn label(&self) -> String {
        match self.limits_of {
            ADAPTER_LIMITS => self.adapter.clone(),
            limits => format!("{} {limits}", self.adapter),
        }
    }
}

/// A device under test.
pub trait Device: Send + Sync {
    fn identity(&self) -> &Identity;

    /// The truth about the device, for the planner.
    fn profile(&self) -> &DeviceProfile;

    /// Runs a job `times` times in one submission; the contents of its buffers afterwards.
    fn run(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        times: u32,
    ) -> Result<Vec<Vec<u32>>, Failure>;

    /// Runs a job once more than asked and gives the time of each of the asked runs.
    fn time(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        runs: u32,
    ) -> Result<Vec<Duration>, Failure>;

    /// Whether it runs what it compiles.
    fn runs(&self) -> bool {
        true
    }

    /// Compiles a shader, and runs nothing.
    fn compile(&self, shader: &Shader) -> Result<(), Failure>;

    /// The wgpu device, for what goes beyond running jobs.
    fn wgpu(&self) -> Option<&WgpuDevice>;
}

/// The planner of a job on a device.
pub fn planner(profile: &DeviceProfile, planning: Planning, job: &Job) -> Planner {
    let planner = Planner::new(told_profile(profile, planning));
    Planner { tuning: tuning(&planner, planning, job), ..planner }
}

/// What the planner is told of a device, whatever the job is.
fn told_profile(profile: &DeviceProfile, planning: Planning) -> DeviceProfile {
    let mut profile = profile.clone();
    match planning {
        Planning::Device | Planning::Candidate(_) | Planning::Shuffled(_) => {}
        Planning::Chosen(..) => {
            profile.subgroup_lanes = 1;
            // In software there is the most to choose.
            profile.software = true;
            profile.limits.max_compute_workgroups_per_dimension = 8;
        }
        Planning::Wide | Planning::Linear(_) => {
            profile.busy_workgroups = 64;
            profile.software = false;
        }
        Planning::Software => profile.software = true,
        Planning::Divided => {
            profile.busy_workgroups = 64;
            profile.software = false;
            profile.max_dispatch_flops = 1 << 16;
        }
        Planning::Narrow => {
            profile.busy_workgroups = 1;
            profile.limits.max_compute_workgroups_per_dimension = 8;
        }
    }
    profile
}

/// What a job's operations are to choose. One that fits the device in no way is left to its plan, which
/// refuses it.
fn tuning(planner: &Planner, planning: Planning, job: &Job) -> Tuning {
    let mut tuning = Tuning::default();
    for (config, tokens, operation) in job.ops.iter().filter_map(|op| op.tuned()) {
        let choices = planner.choices(&operation, &config, tokens);
        if let Some(choice) = choices.ok().and_then(|choices| planning.choose(&choices)) {
            tuning.set(&config, tokens, operation, choice);
        }
    }
    tuning
}

/// A device of wgpu's, with the library's kernels for each that the planner is told it is.
pub struct WgpuDevice {
    pub gpu: Gpu,
    pub adapter: wgpu::Adapter,
    identity: Identity,
    kernels: [Kernels; 6],
}

pub const ADAPTER_LIMITS: &str = "adapter-limits";
const DEFAULT_LIMITS: &str = "default-limits";
const DOWNLEVEL_LIMITS: &str = "downlevel-limits";

/// The limits that compute shaders meet.
pub fn limits_that_count(limits: &wgpu::Limits) -> Vec<(&'static str, u64)> {
    vec![
        ("max_storage_buffers_per_shader_stage", limits.max_storage_buffers_per_shader_stage.into()),
        ("max_storage_buffer_binding_size", limits.max_storage_buffer_binding_size),
        ("max_buffer_size", limits.max_buffer_size),
        ("min_storage_buffer_offset_alignment", limits.min_storage_buffer_offset_alignment.into()),
        ("max_compute_workgroup_storage_size", limits.max_compute_workgroup_storage_size.into()),
        ("max_compute_invocations_per_workgroup", limits.max_compute_invocations_per_workgroup.into()),
        ("max_compute_workgroups_per_dimension", limits.max_compute_workgroups_per_dimension.into()),
    ]
}

/// What allows experimental features, if any of these is one.
fn experimental(features: wgpu::Features) -> wgpu::ExperimentalFeatures {
    if features.intersects(wgpu::Features::all_experimental_mask()) {
        // SAFETY: the only one asked for is cooperative matrices, and kernels read and write through them only
        // inside of what is bound.
        unsafe { wgpu::ExperimentalFeatures::enabled() }
    } else {
        wgpu::ExperimentalFeatures::disabled()
    }
}

impl WgpuDevice {
    /// Every adapter that the environment and `wanted` (a part of the name) leave, each with its own
    /// limits, with WebGPU's defaults and with wgpu's downlevel defaults.
    pub fn all(wanted: Option<&str>, implementation: Option<&str>) -> Result<Vec<Self>, String> {
        let mut devices = Vec::new();
        // Twin GPUs are told apart by a number.
        let mut adapters: Vec<(wgpu::Backend, String)> = Vec::new();
        for adapter in pollster::block_on(adapters_from_env()) {
            let info = adapter.get_info();
            let name = info.name.to_lowercase();
            let same = adapters.iter().filter(|seen| **seen == (info.backend, info.name.clone())).count();
            adapters.push((info.backend, info.name.clone()));
            if wanted.is_some_and(|wanted| !name.contains(&wanted.to_lowercase())) {
                continue;
            }
            for (limits_of, limits) in [
                (ADAPTER_LIMITS, adapter.limits()),
                (DEFAULT_LIMITS, wgpu::Limits::default()),
                (DOWNLEVEL_LIMITS, wgpu::Limits::downlevel_defaults()),
            ] {
                // An adapter may have less than a whole set of defaults.
                if limits_of != ADAPTER_LIMITS && !limits.check_limits(&adapter.limits()) {
                    eprintln!("{} does not have {limits_of}: not tested with these", info.name);
                    continue;
                }
                let device = Self::request(&adapter, same, limits_of, limits, implementation)
                    .map_err(|error| format!("{} ({limits_of}): {error}", info.name))?;
                devices.push(device);
            }
        }
        Ok(devices)
    }

    fn request(
        adapter: &wgpu::Adapter,
        same: usize,
        limits_of: &'static str,
        limits: wgpu::Limits,
        implementation: Option<&str>,
    ) -> Result<Self, String> {
        let info = adapter.get_info();
        // With the sets of limits that any device has, also without what any device need not have.
        let features = match limits_of {
            ADAPTER_LIMITS => {
                wgpu::Features::TIMESTAMP_QUERY
                    | wgpu::Features::SUBGROUP
                    | wgpu::Features::SHADER_F16
                    | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
            }
            _ => wgpu::Features::TIMESTAMP_QUERY,
        };
        let features = adapter.features() & features;
        let (device, queue) = pollster::block_on(adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("conformance"),
            required_features: features,
            required_limits: limits,
            experimental_features: experimental(features),
            ..Default::default()
        }))
        .map_err(|error| error.to_string())?;
        let identity = Identity {
            adapter: match same {
                0 => format!("{:?}/{}", info.backend, info.name),
                _ => format!("{:?}/{} #{}", info.backend, info.name, same + 1),
            },
            implementation: implementation.map(str::to_owned),
            driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
            kind: format!("{:?}", info.device_type),
            limits_of,
            features: adapter.features().iter_names().map(|(name, _)| name).collect::<Vec<_>>().join(" "),
            limits: limits_that_count(&device.limits()),
        };
        let profile = DeviceProfile::of(&device).with_matrices(&device, adapter);
        let chosen = Planning::Chosen(None, None);
        let [device_itself, wide, software] = [Planning::Device, Planning::Wide, Planning::Software];
        let kernels = [device_itself, wide, software, Planning::Narrow, Planning::Divided, chosen]
            .map(|planning| Kernels::with_profile(&device, &queue, told_profile(&profile, planning)));
        Ok(Self { gpu: Gpu { device, queue }, adapter: adapter.clone(), identity, kernels })
    }

    /// The library's kernels for a way of planning, without what a job is to choose.
    fn kernels(&self, planning: Planning) -> &Kernels {
        match planning {
            Planning::Device | Planning::Candidate(_) | Planning::Shuffled(_) => &self.kernels[0],
            Planning::Wide | Planning::Linear(_) => &self.kernels[1],
            Planning::Software => &self.kernels[2],
            Planning::Narrow => &self.kernels[3],
            Planning::Divided => &self.kernels[4],
            Planning::Chosen(..) => &self.kernels[5],
        }
    }

    /// Uploads the memory and prepares every operation.
    fn prepare(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
    ) -> Result<(Vec<wgpu::Buffer>, Vec<Prepared>), Failure> {
        let buffers = memory.upload(&self.gpu)?;
        let tensor = |name: &str| memory.place(name).tensor(&buffers);
        let kernels = self.kernels(planning);
        let kernels = kernels.with_tuning(tuning(kernels.planner(), planning, job));
        let kernels = if memory.is_pooled() { kernels.pooled() } else { kernels };
        let prepared = job
            .ops
            .iter()
            .map(|op| op.prepare(&self.gpu, &kernels, &tensor))
            .collect::<Result<Vec<_>, _>>()?;
        Ok((buffers, prepared))
    }
}

/// A buffer's contents as words.
pub fn words(gpu: &Gpu, buffer: &wgpu::Buffer) -> Result<Vec<u32>, Error> {
    Ok(gpu.read_blocking(buffer)?.into_iter().map(f32::to_bits).collect())
}

impl Device for WgpuDevice {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn profile(&self) -> &DeviceProfile {
        self.kernels(Planning::Device).profile()
    }

    fn run(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        times: u32,
    ) -> Result<Vec<Vec<u32>>, Failure> {
        let (buffers, prepared) = self.prepare(job, memory, planning)?;
        self.gpu.submit(|pass| {
            (0..times).try_for_each(|_| prepared.iter().try_for_each(|encode| encode(pass)))
        })?;
        let read = |buffer| words(&self.gpu, buffer).map_err(|error| Failure::Failed(error.to_string()));
        buffers.iter().map(read).collect()
    }

    fn time(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        runs: u32,
    ) -> Result<Vec<Duration>, Failure> {
        let (_buffers, prepared) = self.prepare(job, memory, planning)?;
        let once = || {
            let begin = Instant::now();
            self.gpu.submit(|pass| prepared.iter().try_for_each(|encode| encode(pass)))?;
            self.gpu.wait()?;
            Ok(begin.elapsed())
        };
        // Some drivers compile a pipeline when it first runs.
        once()?;
        (0..runs).map(|_| once()).collect()
    }

    fn compile(&self, shader: &Shader) -> Result<(), Failure> {
        Ok(self.kernels(Planning::Device).warm([shader.clone()])?)
    }

    fn wgpu(&self) -> Option<&WgpuDevice> {
        Some(self)
    }
}
