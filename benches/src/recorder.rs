//! Compiles and records shaders that are not the library's.

use std::collections::HashMap;
use std::time::Duration;

use hydralora::device::Gpu;
use hydralora::kernel::BindingKind;
use hydralora::stopwatch::Stopwatch;
use hydralora::{Error, wgpu};
use wgpu::util::DeviceExt as _;

/// Dispatches, in the order in which they run.
#[derive(Default)]
pub struct Dispatches(Vec<(wgpu::ComputePipeline, Vec<wgpu::BindGroup>, [u32; 3])>);

impl Dispatches {
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        for (pipeline, bind_groups, [x, y, z]) in &self.0 {
            pass.set_pipeline(pipeline);
            for (bind_group, index) in bind_groups.iter().zip(0..) {
                pass.set_bind_group(index, bind_group, &[]);
            }
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }

    pub fn time(&self, stopwatch: &Stopwatch) -> Result<Duration, Error> {
        stopwatch.time(|pass| {
            self.encode(pass);
            Ok(())
        })
    }

    pub fn count(&self) -> usize {
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
    /// All of wgpu's checks, which are its default.
    pub const ALL: Self = Self { bounds: true, loops: true, zeroing: true };
    /// The checks in the library's own pipelines.
    pub const OURS: Self = Self { bounds: true, loops: false, zeroing: false };
}

/// Spreads workgroups over two dimensions of a grid, since one dimension has at most 65,535. The grid may
/// have more workgroups than asked for, so shaders check their index.
pub fn fold(workgroups: u32) -> [u32; 2] {
    let second = workgroups.div_ceil(65535).max(1);
    [workgroups.div_ceil(second), second]
}

/// Records dispatches. Pipelines with the same text are compiled once.
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

    /// Adds a dispatch. Each uniform is at binding 0 of its own group. The other bindings are in the first
    /// group, after its uniform.
    pub fn dispatch(
        &mut self,
        wgsl: String,
        uniforms: &[&[u8]],
        bindings: &[(BindingKind, &wgpu::Buffer)],
        grid: [u32; 3],
    ) {
        let Self { gpu: Gpu { device, .. }, checks, .. } = *self;
        let pipeline = self.pipelines.entry(wgsl).or_insert_with_key(|wgsl| {
            let kinds: Vec<_> = bindings.iter().map(|(kind, _)| *kind).collect();
            pipeline(device, wgsl, uniforms.len(), &kinds, checks)
        });
        let bind_group = |(index, contents): (u32, &&[u8])| {
            let uniform = device.create_buffer_init(&wgpu::util::BufferInitDescriptor {
                label: Some("recorder"),
                contents,
                usage: wgpu::BufferUsages::UNIFORM,
            });
            let others = if index == 0 { bindings } else { &[] };
            let entries: Vec<_> = std::iter::once(&uniform)
                .chain(others.iter().map(|(_, buffer)| *buffer))
                .zip(0..)
                .map(|(buffer, binding)| wgpu::BindGroupEntry {
                    binding,
                    resource: buffer.as_entire_binding(),
                })
                .collect();
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("recorder"),
                layout: &pipeline.get_bind_group_layout(index),
                entries: &entries,
            })
        };
        let bind_groups = (0..).zip(uniforms).map(bind_group).collect();
        self.recorded.0.push((pipeline.clone(), bind_groups, grid));
    }

    /// Takes the dispatches since the last call.
    pub fn finish(&mut self) -> Dispatches {
        std::mem::take(&mut self.recorded)
    }
}

fn pipeline(
    device: &wgpu::Device,
    wgsl: &str,
    groups: usize,
    kinds: &[BindingKind],
    checks: Checks,
) -> wgpu::ComputePipeline {
    let label = Some("recorder");
    let entry = |(kind, binding)| {
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
    };
    let layouts: Vec<_> = (0..groups)
        .map(|group| {
            let others = if group == 0 { kinds } else { &[] };
            let kinds = std::iter::once(BindingKind::Uniform).chain(others.iter().copied());
            let entries: Vec<_> = kinds.zip(0..).map(entry).collect();
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label, entries: &entries })
        })
        .collect();
    let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label,
        bind_group_layouts: &layouts.iter().map(Some).collect::<Vec<_>>(),
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
    // SAFETY: the benches' shaders end every loop, and stay inside their buffers, whose sizes the benches
    // choose.
    unsafe { device.create_shader_module_trusted(descriptor, runtime) }
}
