//! The example's own shaders: everything of a transformer but its matrix products.

use hydralora::{Element, wgpu};

use crate::config::Config;

/// What a dispatch is for, in the report of what takes how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The products with frozen matrices.
    Frozen,
    Adapters,
    Attention,
    /// Norms, rotations, embeddings and the loss.
    Rest,
}

/// A compiled shader.
pub struct Shader {
    pipeline: wgpu::ComputePipeline,
    /// Workgroups of a token.
    columns: u32,
    kind: Kind,
}

/// A shader with its buffers, ready to record.
pub struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    columns: u32,
    pub kind: Kind,
}

/// All shaders. Each file in `shaders/` says what it computes.
pub struct Shaders {
    pub embed: Shader,
    pub norm: Shader,
    pub rope_query: Shader,
    pub rope_key: Shader,
    pub store_value: Shader,
    pub attention: Shader,
    pub silu: Shader,
    pub loss: Shader,
    /// Like `loss`, and leaves the logits' gradients in their place.
    pub loss_backward: Shader,
    pub last_norm_backward: Shader,
    pub norm_backward: Shader,
    pub silu_backward: Shader,
    pub attention_query: Shader,
    pub attention_key: Shader,
    /// The gradients of what was rotated.
    pub unrope_query: Shader,
    pub unrope_key: Shader,
}

impl Shaders {
    /// Compiles them for a model whose embeddings are stored in `element`.
    pub fn compile(device: &wgpu::Device, config: &Config, element: Element) -> Self {
        let constants = format!(
            "const WIDTH = {}u; const HIDDEN = {}u; const HEADS = {}u; const KEY_HEADS = {}u; const HEAD_WIDTH = {}u;
             const VOCABULARY = {}u; const EPSILON = {:e}f; const SCALE = {:e}f;\n{}",
            config.width,
            config.hidden,
            config.heads,
            config.key_heads,
            config.head_width,
            config.vocabulary,
            config.epsilon,
            1.0 / f64::from(config.head_width).sqrt(),
            include_str!("shaders/batch.wgsl"),
        );
        let compile = |label, columns, parts: &[&str]| {
            let text = [&[constants.as_str()], parts].concat().concat();
            let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
                label: Some(label),
                source: wgpu::ShaderSource::Wgsl(text.into()),
            });
            let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(label),
                layout: None,
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            });
            Shader { pipeline, columns, kind: Kind::Rest }
        };
        let rope = |label, columns: u32, stored: bool, rotated: bool, inverse: bool| {
            let own = format!(
                "const COLUMNS = {columns}u; const STORED = {stored}; const ROTATED = {rotated};
                 const INVERSE = {inverse};\n"
            );
            compile(label, 1, &[&own, include_str!("shaders/rope.wgsl")])
        };
        let attention =
            |label, columns, text| Shader { kind: Kind::Attention, ..compile(label, columns, &[text]) };
        let table = match element {
            Element::F32 => include_str!("shaders/table_f32.wgsl"),
            Element::F16 => include_str!("shaders/table_f16.wgsl"),
            Element::Bf16 => include_str!("shaders/table_bf16.wgsl"),
        };
        let keys = config.key_width();
        let norm_backward = include_str!("shaders/norm_backward.wgsl");
        let loss = include_str!("shaders/loss.wgsl");
        Self {
            embed: compile("embed", 1, &[table, include_str!("shaders/embed.wgsl")]),
            norm: compile("norm", 1, &[include_str!("shaders/norm.wgsl")]),
            rope_query: rope("rope query", config.query_width(), false, true, false),
            rope_key: rope("rope key", keys, true, true, false),
            store_value: rope("store value", keys, true, false, false),
            attention: attention("attention", config.heads, include_str!("shaders/attention.wgsl")),
            silu: compile("silu", 1, &[include_str!("shaders/silu.wgsl")]),
            loss: compile("loss", 1, &["const TRAINING = false;\n", loss]),
            loss_backward: compile("loss backward", 1, &["const TRAINING = true;\n", loss]),
            last_norm_backward: compile("last norm backward", 1, &["const ADDING = false;\n", norm_backward]),
            norm_backward: compile("norm backward", 1, &["const ADDING = true;\n", norm_backward]),
            silu_backward: compile("silu backward", 1, &[include_str!("shaders/silu_backward.wgsl")]),
            attention_query: attention(
                "attention query",
                config.heads,
                include_str!("shaders/attention_query.wgsl"),
            ),
            attention_key: attention(
                "attention key",
                config.key_heads,
                include_str!("shaders/attention_key.wgsl"),
            ),
            unrope_query: rope("unrope query", config.query_width(), false, true, true),
            unrope_key: rope("unrope key", keys, false, true, true),
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
            label: Some("llama"),
            layout: &self.pipeline.get_bind_group_layout(0),
            entries: &entries,
        });
        Dispatch { pipeline: self.pipeline.clone(), bind_group, columns: self.columns, kind: self.kind }
    }
}

impl Dispatch {
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, tokens: u32) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(tokens, self.columns, 1);
    }
}
