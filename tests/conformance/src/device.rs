//! What the suite runs on: a device, and wgpu's among them. Running is a future, because nothing may block in a
//! browser.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use hydralora::device::Gpu;
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
    #[must_use]
    pub fn label(&self) -> String {
        match self.limits_of {
            ADAPTER_LIMITS => self.adapter.clone(),
            limits => format!("{} {limits}", self.adapter),
        }
    }
}

/// What a device or a trial will have given. It stays on its thread.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + 'a>>;

/// A device under test.
pub trait Device: Send + Sync {
    fn identity(&self) -> &Identity;

    /// The truth about the device, for the planner.
    fn profile(&self) -> &DeviceProfile;

    /// Runs a job `times` times in one submission; the contents of its buffers afterwards.
    fn run<'a>(
        &'a self,
        job: &'a Job,
        memory: &'a Memory,
        planning: Planning,
        times: u32,
    ) -> Pending<'a, Vec<Vec<u32>>>;
}

/// What the planner is told of a device, whatever the job is.
pub fn told_profile(profile: &DeviceProfile, planning: Planning) -> DeviceProfile {
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
pub fn tuning(planner: &Planner, planning: Planning, job: &Job) -> Tuning {
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
    /// What a browser reported after the call that was at fault, and the library did not wait for.
    late: Arc<Mutex<Vec<String>>>,
}

pub const ADAPTER_LIMITS: &str = "adapter-limits";
const DEFAULT_LIMITS: &str = "default-limits";
const DOWNLEVEL_LIMITS: &str = "downlevel-limits";

/// The limits that compute shaders meet, with their names.
#[must_use]
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

/// The sets of limits that a device is requested with.
pub const LIMITS: [&str; 3] = [ADAPTER_LIMITS, DEFAULT_LIMITS, DOWNLEVEL_LIMITS];

/// A set of limits on an adapter; none if the adapter has less.
fn limits(limits_of: &str, adapter: &wgpu::Adapter) -> Option<wgpu::Limits> {
    let limits = match limits_of {
        DEFAULT_LIMITS => wgpu::Limits::default(),
        // A browser gives each device WebGPU's defaults at least.
        DOWNLEVEL_LIMITS if adapter.get_info().backend == wgpu::Backend::BrowserWebGpu => return None,
        DOWNLEVEL_LIMITS => wgpu::Limits::downlevel_defaults(),
        _ => return Some(adapter.limits()),
    };
    limits.check_limits(&adapter.limits()).then_some(limits)
}

impl WgpuDevice {
    /// A device on this adapter with one of the sets of [`LIMITS`]; none if the adapter has less. `name` is the
    /// adapter's in names of trials, `driver` what is known about its driver.
    ///
    /// # Errors
    /// The adapter refuses the device.
    pub async fn request(
        adapter: &wgpu::Adapter,
        name: &str,
        driver: &str,
        limits_of: &'static str,
        implementation: Option<&str>,
    ) -> Result<Option<Self>, String> {
        let Some(limits) = limits(limits_of, adapter) else { return Ok(None) };
        let info = adapter.get_info();
        // With the sets of limits that any device has, also without what any device need not have.
        let features = match limits_of {
            ADAPTER_LIMITS => {
                wgpu::Features::TIMESTAMP_QUERY
                    | wgpu::Features::SUBGROUP
                    | wgpu::Features::SHADER_INT64
                    | wgpu::Features::SHADER_F16
                    | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
            }
            _ => wgpu::Features::TIMESTAMP_QUERY,
        };
        let features = adapter.features() & features;
        let request = adapter.request_device(&wgpu::DeviceDescriptor {
            label: Some("conformance"),
            required_features: features,
            required_limits: limits,
            experimental_features: experimental(features),
            ..Default::default()
        });
        let (device, queue) = request.await.map_err(|error| error.to_string())?;
        let identity = Identity {
            adapter: format!("{:?}/{name}", info.backend),
            implementation: implementation.map(str::to_owned),
            driver: driver.to_owned(),
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
        let late = Arc::new(Mutex::new(Vec::new()));
        if info.backend == wgpu::Backend::BrowserWebGpu {
            let heard = Arc::clone(&late);
            device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
                heard.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
            }));
        }
        let gpu = Gpu { device, queue };
        Ok(Some(Self { gpu, adapter: adapter.clone(), identity, kernels, late }))
    }

    /// The library's kernels for a way of planning, without what a job is to choose.
    #[must_use]
    pub fn kernels(&self, planning: Planning) -> &Kernels {
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
    ///
    /// # Errors
    /// The library refuses an operation, or there is too little memory.
    pub async fn prepare(
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
        let mut prepared = Vec::new();
        for op in &job.ops {
            prepared.push(op.prepare(&self.gpu, &kernels, &tensor).await?);
        }
        Ok((buffers, prepared))
    }

    async fn run_job(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        times: u32,
    ) -> Result<Vec<Vec<u32>>, Failure> {
        let (buffers, prepared) = self.prepare(job, memory, planning).await?;
        self.gpu.submit(|pass| {
            (0..times).try_for_each(|_| prepared.iter().try_for_each(|encode| encode(pass)))
        })?;
        // All are asked for before the first is awaited.
        let copies: Vec<_> = buffers.iter().map(|buffer| words(&self.gpu, buffer)).collect();
        let mut after = Vec::new();
        for copy in copies {
            after.push(copy.await.map_err(|error| Failure::Failed(error.to_string()))?);
        }
        Ok(after)
    }

    /// The outcome, or else what the browser reported meanwhile.
    fn unless_reported<T>(&self, outcome: Result<T, Failure>) -> Result<T, Failure> {
        let mut late = std::mem::take(&mut *self.late.lock().unwrap_or_else(PoisonError::into_inner));
        if late.is_empty() {
            return outcome;
        }
        if let Err(Failure::Unsupported(consequence) | Failure::Failed(consequence)) = outcome {
            late.push(consequence);
        }
        Err(Failure::Failed(late.join("; ")))
    }
}

/// A buffer's contents as words. Natively this waits, because somebody has to drive the device meanwhile.
pub fn words(gpu: &Gpu, buffer: &wgpu::Buffer) -> impl Future<Output = Result<Vec<u32>, Error>> + use<> {
    let (gpu, copy) = (gpu.clone(), gpu.read(buffer));
    async move {
        let numbers = if cfg!(target_arch = "wasm32") { copy.await? } else { gpu.block_on(copy)?? };
        Ok(numbers.into_iter().map(f32::to_bits).collect())
    }
}

impl Device for WgpuDevice {
    fn identity(&self) -> &Identity {
        &self.identity
    }

    fn profile(&self) -> &DeviceProfile {
        self.kernels(Planning::Device).profile()
    }

    fn run<'a>(
        &'a self,
        job: &'a Job,
        memory: &'a Memory,
        planning: Planning,
        times: u32,
    ) -> Pending<'a, Vec<Vec<u32>>> {
        Box::pin(async move { self.unless_reported(self.run_job(job, memory, planning, times).await) })
    }
}
