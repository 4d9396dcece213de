//! Compiled pipelines, cached by their typed key, and dispatches prepared from them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::plan::{DeviceProfile, DispatchPlan};
use crate::scope::scoped;
use crate::shader::{BindingKind, Shader};
use crate::tensor::{Operand, check_operands};
use crate::tuning::Tuning;

/// The library's pipelines on one of the caller's devices: what operations are prepared with.
///
/// Pipelines compile on first use and are kept. Make one per device and share it: it is `Sync`, and
/// holds only a reference-counted handle of the device.
#[derive(Debug)]
pub struct Kernels {
    device: wgpu::Device,
    profile: DeviceProfile,
    cache: Arc<Mutex<HashMap<Shader, Slot>>>,
}

/// A pipeline's place in the cache, empty until it is compiled. Its lock is held while that one
/// pipeline compiles, so that different pipelines compile at the same time.
type Slot = Arc<Mutex<Option<Arc<Pipeline>>>>;

#[derive(Debug)]
struct Pipeline {
    pipeline: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// One dispatch, ready to record.
#[derive(Debug)]
pub(crate) struct Dispatch {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    grid: [u32; 3],
}

impl Dispatch {
    pub(crate) fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        let [x, y, z] = self.grid;
        pass.dispatch_workgroups(x, y, z);
    }
}

impl Kernels {
    /// Kernels for `device`, with the plan parameters that [`DeviceProfile::of`] gives.
    #[must_use]
    pub fn new(device: &wgpu::Device) -> Self {
        Self::with_profile(device, DeviceProfile::of(device))
    }

    /// Kernels for `device` that plan for `profile`: for devices whose width the caller knows. Where the
    /// profile claims more subgroup lanes or loop iterations than the device guarantees, the device's count.
    #[must_use]
    pub fn with_profile(device: &wgpu::Device, profile: DeviceProfile) -> Self {
        let profile = profile.within(&DeviceProfile::of(device));
        Self { device: device.clone(), profile, cache: Arc::default() }
    }

    /// The same kernels, with the pipelines compiled so far and later, planning with `tuning`.
    #[must_use]
    pub fn with_tuning(&self, tuning: Tuning) -> Self {
        let Self { device, profile, cache } = self;
        let profile = DeviceProfile { tuning, ..profile.clone() };
        Self { device: device.clone(), profile, cache: Arc::clone(cache) }
    }

    /// What plans are made for.
    #[must_use]
    pub fn profile(&self) -> &DeviceProfile {
        &self.profile
    }

    /// Compiles shaders ahead of their first use; those of a plan are the `shader`s of its dispatches.
    ///
    /// # Errors
    /// The device lacks a limit or wgpu refuses the pipeline.
    pub fn warm(&self, shaders: impl IntoIterator<Item = Shader>) -> Result<(), Error> {
        for shader in shaders {
            self.pipeline(&shader)?;
        }
        Ok(())
    }

    /// Number of pipelines compiled so far.
    #[must_use]
    pub fn compiled(&self) -> usize {
        let slots: Vec<Slot> = lock(&self.cache).values().cloned().collect();
        slots.into_iter().filter(|slot| lock(slot).is_some()).count()
    }

    fn pipeline(&self, shader: &Shader) -> Result<Arc<Pipeline>, Error> {
        let slot = Arc::clone(lock(&self.cache).entry(shader.clone()).or_default());
        let mut slot = lock(&slot);
        if let Some(pipeline) = &*slot {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Arc::new(self.compile(shader)?);
        *slot = Some(Arc::clone(&pipeline));
        Ok(pipeline)
    }

    fn compile(&self, shader: &Shader) -> Result<Pipeline, Error> {
        let source = shader.source();
        log::debug!("hydralora: compiling {}", source.label);
        scoped(&self.device, &format!("compiling {}", source.label), || {
            let module = trusted_module(&self.device, source.label, source.wgsl);
            let entries: Vec<_> =
                (0..).zip(&source.bindings).map(|(at, binding)| layout_entry(at, binding.kind)).collect();
            let label = Some(source.label);
            let layout = self
                .device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label,
                bind_group_layouts: &[Some(&layout)],
                ..Default::default()
            });
            let pipeline = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label,
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every kernel writes its workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: None,
            });
            Pipeline { pipeline, layout }
        })
    }

    /// Compiles where needed, checks the operands and binds them behind a uniform buffer of their own.
    pub(crate) fn dispatch(&self, plan: &DispatchPlan, operands: &[Operand<'_>]) -> Result<Dispatch, Error> {
        let uniform = self.uniform(&plan.uniform)?;
        self.dispatch_with(plan, &uniform, operands)
    }

    /// Like [`Kernels::dispatch`], behind a uniform buffer that the caller keeps and changes.
    pub(crate) fn dispatch_with(
        &self,
        plan: &DispatchPlan,
        uniform: &wgpu::Buffer,
        operands: &[Operand<'_>],
    ) -> Result<Dispatch, Error> {
        check_operands(operands, &self.profile.limits)?;
        let pipeline = self.pipeline(&plan.shader)?;
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() }];
        entries.extend(
            (1..)
                .zip(operands)
                .map(|(binding, operand)| wgpu::BindGroupEntry { binding, resource: operand.binding() }),
        );
        let bind_group = scoped(&self.device, "binding the tensors of an operation", || {
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("hydralora"),
                layout: &pipeline.layout,
                entries: &entries,
            })
        })?;
        Ok(Dispatch { pipeline, bind_group, grid: plan.grid })
    }

    /// A uniform buffer holding `contents`.
    pub(crate) fn uniform(&self, bytes: &[u8]) -> Result<wgpu::Buffer, Error> {
        // Devices without arbitrary binding sizes want whole 16-byte units.
        let size = (bytes.len() as u64).next_multiple_of(16);
        let action = "creating a uniform buffer";
        scoped(&self.device, action, || {
            let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("hydralora uniform"),
                size,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: true,
            });
            // Without its contents a kernel would see no tokens and do nothing.
            buffer.get_mapped_range_mut(..bytes.len() as u64)?.copy_from_slice(bytes);
            buffer.unmap();
            Ok(buffer)
        })?
        .map_err(|error: wgpu::MapRangeError| Error::Device {
            action: action.to_owned(),
            message: error.to_string(),
        })
    }

    /// A storage buffer of the library's own.
    pub(crate) fn scratch(&self, label: &'static str, bytes: u64) -> Result<wgpu::Buffer, Error> {
        scoped(&self.device, "creating a scratch buffer", || {
            self.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some(label),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE,
                mapped_at_creation: false,
            })
        })
    }
}

/// The lock, whatever happened to a thread that held it: what it guards is always whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn layout_entry(binding: u32, kind: BindingKind) -> wgpu::BindGroupLayoutEntry {
    let ty = match kind {
        BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
        BindingKind::Read => wgpu::BufferBindingType::Storage { read_only: true },
        BindingKind::Write => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// A shader module without wgpu's loop countdown; wgpu's other runtime checks stay on.
///
/// The countdown bounds loops that might not end. It costs: an unrolled loop keeps its exit in every
/// copy (compiled for AMD gfx1100, the forward kernel has 208 branches with it and 26 without).
#[allow(unsafe_code)]
pub(crate) fn trusted_module(device: &wgpu::Device, label: &'static str, wgsl: String) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    let checks =
        wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: without the countdown a loop that never ends is undefined behaviour. Every loop in
    // shaders/ is a `for` over an unsigned counter that only its own increment changes, by a
    // positive constant, up to a bound fixed before the loop starts; and no bound comes within an
    // increment of 2^32, because bounds count tokens, rows or groups of four elements, of which a
    // binding of 4 GiB holds less than 2^31. tests/shaders.rs checks the form of every loop. Bounds
    // checks stay on, except on GL, which has none and where nothing here depends on them.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}
