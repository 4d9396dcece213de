//! Shaders that are not the library's, made ready to record.

use std::collections::HashMap;

use hydralora::device::Gpu;
use hydralora::shader::BindingKind;
use hydralora::wgpu;
use wgpu::util::DeviceExt as _;

/// Dispatches in the order they run.
#[derive(Default)]
pub struct Dispatches(Vec<(wgpu::ComputePipeline, wgpu::BindGroup, [u32; 3])>);

impl Dispatches {
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        for (pipeline, bind_group, [x, y, z]) in &self.0 {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bind_group, &[]);
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// The checks that wgpu puts into shaders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Checks {
    /// Indices stay inside their buffers.
    pub bounds: bool,
    /// Loops end.
    pub loops: bool,
    /// Workgroup memory starts as zero.
    pub zeroing: bool,
}

impl Checks {
    /// wgpu's default.
    pub const ALL: Self = Self { bounds: true, loops: true, zeroing: true };
    /// What the library's own pipelines have.
    pub const OURS: Self = Self { bounds: true, loops: false, zeroing: false };
}

/// Spreads workgroups over two dimensions of a grid, since one has 65,535 at most. The second dimension may
/// make it more of them, so shaders check their index.
pub fn fold(workgroups: u32) -> [u32; 2] {
    let second = workgroups.div_ceil(65535).max(1);
    [workgroups.div_ceil(second), second]
}

/// Puts dispatches together; pipelines of the same text are compiled once.
pub struct Recorder<'a> {
    pub gpu: &'a Gpu,
    checks: Checks,
    pipelines: HashMap<String, wgpu::ComputePipeline>,
    recorded: Dispatches,
}

impl<'a> Recorder<'a> {
    pub fn new(gpu: &'a Gpu, checks: Checks) -> Self {
        Self { gpu, checks, pipelines: HashMap::new(), recorded: Dispatches::default() }
    }

    /// One dispatch: the uniform at binding 0, the others behind it.
    pub fn dispatch(
        &mut self,
        wgsl: String,
        uniform: &[u8],
        bindings: &[(BindingKind, &wgpu::Buffer)],
        grid: [u32; 3],
    ) {
        let Self { gpu: Gpu { device, .. }, checks, .. } = *self;
        let pipeline = self.pipelines.entry(wgsl).or_insert_with_key(|wgsl| {
            pipeline(device, wgsl, bindings.iter().map(|(kind, _)| *kind), checks)
        });
        let uniform = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
            label: Some("recorder"),
            contents: uniform,
            usage: wgpu::BufferUsages::UNIFORM,
        });
        let entries: Vec<_> = std::iter::once(&uniform)
            .chain(bindings.iter().map(|(_, buffer)| *buffer))
            .zip(0..)
            .map(|(buffer, binding)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("recorder"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        self.recorded.0.push((pipeline.clone(), bind_group, grid));
    }

    /// What was recorded since the last time.
    pub fn finish(&mut self) -> Dispatches {
        std::mem::take(&mut self.recorded)
    }
}

fn pipeline(
    device: &wgpu::Device,
    wgsl: &str,
    kinds: impl Iterator<Item = BindingKind>,
    checks: Checks,
) -> wgpu::ComputePipeline {
    let entries: Vec<_> = std::iter::once(BindingKind::Uniform)
        .chain(kinds)
        .zip(0..)
        .map(|(kind, binding)| {
            let storage = |read_only| wgpu::BufferBindingType::Storage { read_only };
            let ty = match kind {
                BindingKind::Uniform => wgpu::BufferBindingType::Uniform,
                BindingKind::Read => storage(true),
                BindingKind::Write => storage(false),
            };
            wgpu::BindGroupLayoutEntry {
                binding,
                visibility: wgpu::ShaderStages::COMPUTE,
                ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
                count: None,
            }
        })
        .collect();
    let label = Some("recorder");
    let layout =
        device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries });
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &[Some(&layout)],
        ..Default::default()
    });
    device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label,
        layout: Some(&layout),
        module: &module(device, wgsl, checks),
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            zero_initialize_workgroup_memory: checks.zeroing,
            ..Default::default()
        },
        cache: None,
    })
}

#[allow(unsafe_code)]
fn module(device: &wgpu::Device, wgsl: &str, checks: Checks) -> wgpu::ShaderModule {
    let descriptor = wgpu::ShaderModuleDescriptor {
        label: Some("recorder"),
        source: wgpu::ShaderSource::Wgsl(wgsl.into()),
    };
    let runtime = wgpu::ShaderRuntimeChecks {
        bounds_checks: checks.bounds,
        force_loop_bounding: checks.loops,
        ..wgpu::ShaderRuntimeChecks::checked()
    };
    // SAFETY: the benches' shaders end every loop and stay inside their buffers, whose sizes the
    // benches choose.
    unsafe { device.create_shader_module_trusted(descriptor, runtime) }
}
