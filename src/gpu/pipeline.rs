//! Compiled shaders.

use crate::error::Error;
use crate::gpu::scope::Scopes;
use crate::kernel::{BindingKind, Source, Varying};

/// A compiled shader and its bindings.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub(super) compute: wgpu::ComputePipeline,
    pub(super) layout: wgpu::BindGroupLayout,
    pub(super) varying: Varying,
}

/// Compiles a shader. The result is ready at once, except in a browser, where it is known later. `varying` is
/// the layout of group 1, for shaders that have one.
pub(super) fn compile(
    device: &wgpu::Device,
    source: Source,
    varying: &wgpu::BindGroupLayout,
) -> impl Future<Output = Result<Pipeline, Error>> + use<> {
    let Source { label, wgsl, bindings, varying: has } = source;
    log::debug!("hydralora: compiling {label}");
    let scopes = Scopes::push(device, &format!("compiling {label}"));
    let module = trusted_module(device, label, wgsl);
    let entries: Vec<_> = (0..).zip(&bindings).map(|(at, binding)| entry(at, binding.kind)).collect();
    let label = Some(label);
    let layout =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let groups = [Some(&layout), Some(varying)];
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: if has == Varying::Nothing { &groups[..1] } else { &groups },
        ..Default::default()
    });
    let compute = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
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
    scopes.report(Pipeline { compute, layout, varying: has })
}

pub(crate) fn entry(binding: u32, kind: BindingKind) -> wgpu::BindGroupLayoutEntry {
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
/// The countdown bounds loops that might not end. It is expensive: an unrolled loop keeps its exit in every
/// copy (compiled for AMD gfx1100, the prototype of forward had 208 branches with it and 26 without).
#[allow(unsafe_code)]
pub(crate) fn trusted_module(device: &wgpu::Device, label: &'static str, wgsl: String) -> wgpu::ShaderModule {
    let descriptor =
        wgpu::ShaderModuleDescriptor { label: Some(label), source: wgpu::ShaderSource::Wgsl(wgsl.into()) };
    let checks =
        wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: without the countdown, a loop that never ends is undefined behaviour. Every loop in
    // shaders/ is a `for` over an unsigned counter that only its own increment changes, by a
    // positive constant, up to a bound fixed before the loop starts. No bound comes within an
    // increment of 2^32, because bounds count tokens, rows or vec4s, of which a binding of 4 GiB
    // holds less than 2^31, and shaders take no batch to have more tokens (`batch_tokens`).
    // tests/conformance/tests/shaders.rs checks the form of every loop. Bounds checks stay on,
    // except on GL, which has none; nothing here depends on them there.
    unsafe { device.create_shader_module_trusted(descriptor, checks) }
}
