//! The example's own small shaders: everything between the adapters and the loss.

use hydralora::{Batch, wgpu};

use crate::base::WIDTH;

/// A compiled shader.
pub struct Shader {
    pipeline: wgpu::ComputePipeline,
    workgroups_per_token: u32,
}

/// A shader with its buffers, ready to record.
pub struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    workgroups_per_token: u32,
}

/// All shaders. Each file in `shaders/` says what it computes.
pub struct Shaders {
    pub embed: Shader,
    pub gelu: Shader,
    pub gelu_backward: Shader,
    pub cross_entropy: Shader,
}

impl Shaders {
    pub fn compile(device: &wgpu::Device) -> Self {
        let compile = |label, wgsl: &str, workgroups_per_token| {
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(label),
                source: wgpu::ShaderSource::Wgsl(wgsl.into()),
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            Shader { pipeline, workgroups_per_token }
        };
        // 64 threads, each with a vec4.
        let gelu = WIDTH / 256;
        Self {
            embed: compile("embed", include_str!("shaders/embed.wgsl"), 1),
            gelu: compile("gelu", include_str!("shaders/gelu.wgsl"), gelu),
            gelu_backward: compile("gelu_backward", include_str!("shaders/gelu_backward.wgsl"), gelu),
            cross_entropy: compile("cross_entropy", include_str!("shaders/cross_entropy.wgsl"), 1),
        }
    }
}

impl Shader {
    /// Binds `buffers` to bindings 0, 1, ...
    pub fn bind(&self, device: &wgpu::Device, buffers: &[&wgpu::Buffer]) -> Dispatch {
        let entries: Vec<_> = (0..)
            .zip(buffers)
            .map(|(binding, buffer)| wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() })
            .collect();
        let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("finetune"),
            layout: &self.pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Dispatch {
            pipeline: self.pipeline.clone(),
            bind_group,
            workgroups_per_token: self.workgroups_per_token,
        }
    }
}

impl Dispatch {
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, batch: &Batch) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(batch.tokens() * self.workgroups_per_token, 1, 1);
    }
}
