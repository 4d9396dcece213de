//! The example's own shaders: everything of a transformer but its matrix products.

use hydralora::{Element, Limit, wgpu};

use crate::config::Config;
use crate::error::Error;

/// The tokens of a workgroup of attention: four groups of four.
const TILE: u32 = 16;
/// The threads of the loss, the largest workgroup but perhaps attention's.
const LOSS_THREADS: u32 = 256;
/// The buffers of the backward pass of attention, beside the span.
const STORAGE_BUFFERS: u32 = 8;

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
    /// The tokens of a workgroup.
    tokens: u32,
    /// Workgroups of these tokens.
    columns: u32,
    kind: Kind,
}

/// A shader with its buffers, ready to record.
pub struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    tokens: u32,
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
    pub async fn compile(device: &wgpu::Device, config: &Config, element: Element) -> Result<Self, Error> {
        check(device, config)?;
        reported(device, "compiling the model's shaders", || Self::create(device, config, element)).await
    }

    fn create(device: &wgpu::Device, config: &Config, element: Element) -> Self {
        let constants = format!(
            "const WIDTH = {}u; const HIDDEN = {}u; const HEADS = {}u; const KEY_HEADS = {}u; const HEAD_WIDTH = {}u;
             const VOCABULARY = {}u; const EPSILON = {:e}f; const SCALE = {:e}f; const LOSS_THREADS = {LOSS_THREADS}u;\n{}",
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
            Shader { pipeline, tokens: 1, columns, kind: Kind::Rest }
        };
        let rope = |label, columns: u32, stored: bool, rotated: bool, inverse: bool| {
            let own = format!(
                "const COLUMNS = {columns}u; const STORED = {stored}; const ROTATED = {rotated};
                 const INVERSE = {inverse};\n"
            );
            compile(label, 1, &[&own, include_str!("shaders/rope.wgsl")])
        };
        let attention = |label, columns, text| {
            let own = format!("const TILE = {TILE}u;\n");
            let parts = [&own, include_str!("shaders/attention_tile.wgsl"), text];
            Shader { kind: Kind::Attention, tokens: TILE, ..compile(label, columns, &parts) }
        };
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

/// Refuses a device with smaller workgroups or fewer bindings than the shaders have.
pub(crate) fn check(device: &wgpu::Device, config: &Config) -> Result<(), Error> {
    let limits = device.limits();
    let threads = LOSS_THREADS.max(config.head_width);
    // Attention has a vec4 of each of four groups for each thread.
    let workgroup = (4 * 16 * config.head_width).max(4 * LOSS_THREADS);
    for (limit, needed, allowed) in [
        (
            Limit::ComputeInvocationsPerWorkgroup,
            threads,
            limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x),
        ),
        (Limit::ComputeWorkgroupStorageSize, workgroup, limits.max_compute_workgroup_storage_size),
        (Limit::StorageBuffersPerShaderStage, STORAGE_BUFFERS, limits.max_storage_buffers_per_shader_stage),
    ] {
        let fix = "request the device with the adapter's limits, or take another adapter";
        check_limit("the transformer's shaders", limit, [needed, allowed], fix)?;
    }
    Ok(())
}

/// Refuses what needs more than the device allows.
pub(crate) fn check_limit(
    what: &str,
    limit: Limit,
    [needed, allowed]: [u32; 2],
    fix: &'static str,
) -> Result<(), Error> {
    if needed <= allowed {
        return Ok(());
    }
    let (what, needed, allowed) = (what.to_owned(), needed.into(), allowed.into());
    Err(Error::Library(hydralora::Error::OverLimit { what, limit, needed, allowed, fix }))
}

/// What `create` gives, or what wgpu reported meanwhile.
pub(crate) async fn reported<T>(
    device: &wgpu::Device,
    action: &str,
    create: impl FnOnce() -> T,
) -> Result<T, Error> {
    use wgpu::ErrorFilter::{Internal, OutOfMemory, Validation};
    let [internal, memory] = [Internal, OutOfMemory].map(|filter| device.push_error_scope(filter));
    let validation = device.push_error_scope(Validation);
    let created = create();
    let validation = validation.pop();
    let memory = memory.pop();
    let internal = internal.pop();
    // A refusal by the driver is the cause, and invalid objects a consequence.
    match internal.await.or(memory.await).or(validation.await) {
        None => Ok(created),
        Some(error) => {
            let (action, message) = (action.to_owned(), error.to_string());
            Err(Error::Library(hydralora::Error::Device { action, message }))
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
        let Self { pipeline, tokens, columns, kind } = self;
        Dispatch { pipeline: pipeline.clone(), bind_group, tokens: *tokens, columns: *columns, kind: *kind }
    }
}

impl Dispatch {
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, tokens: u32) {
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(tokens.div_ceil(self.tokens), self.columns, 1);
    }
}

#[cfg(test)]
mod tests {
    use hydralora::device::Gpu;
    use hydralora::{Element, wgpu};

    use super::Shaders;
    use crate::config::Config;
    use crate::error::Error;

    const SEQUENCE: usize = 70;
    const TOKENS: usize = 2 * SEQUENCE - 3;
    const HEADS: usize = 4;
    const KEY_HEADS: usize = 2;

    /// Numbers between -1 and 1 in no order.
    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let number = |at: u32| {
            (at.wrapping_add(seed << 20).wrapping_mul(2_654_435_761) >> 8) as f32 / f32::from(1u16 << 15)
        };
        (0..count as u32).map(|at| number(at) / 256.0 - 1.0).collect()
    }

    fn dot(a: &[f32], b: &[f32]) -> f64 {
        a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    fn add(to: &mut [f64], factor: f64, numbers: &[f32]) {
        for (to, number) in to.iter_mut().zip(numbers) {
            *to += factor * f64::from(*number);
        }
    }

    /// What attention gives, and the gradients of its queries, keys and values, in float64.
    fn expected(width: usize, [q, k, v, g]: [&[f32]; 4]) -> [Vec<f64>; 4] {
        let scale = 1.0 / (width as f64).sqrt();
        let [mut result, mut dq] = [0, 1].map(|_| vec![0.0; q.len()]);
        let [mut dk, mut dv] = [0, 1].map(|_| vec![0.0; k.len()]);
        for token in 0..TOKENS {
            for head in 0..HEADS {
                let own = (token * HEADS + head) * width..(token * HEADS + head + 1) * width;
                let key = |place: usize| {
                    let row = place * KEY_HEADS + head / (HEADS / KEY_HEADS);
                    row * width..(row + 1) * width
                };
                let places = token / SEQUENCE * SEQUENCE..=token;
                let products: Vec<f64> =
                    places.clone().map(|at| (scale * dot(&q[own.clone()], &k[key(at)])).exp()).collect();
                let total: f64 = products.iter().sum();
                let weights: Vec<f64> = products.iter().map(|product| product / total).collect();
                let slopes: Vec<f64> = places.clone().map(|at| dot(&g[own.clone()], &v[key(at)])).collect();
                let mean: f64 = weights.iter().zip(&slopes).map(|(weight, slope)| weight * slope).sum();
                for ((at, weight), slope) in places.zip(weights).zip(slopes) {
                    let slope = scale * weight * (slope - mean);
                    add(&mut result[own.clone()], weight, &v[key(at)]);
                    add(&mut dv[key(at)], weight, &g[own.clone()]);
                    add(&mut dq[own.clone()], slope, &k[key(at)]);
                    add(&mut dk[key(at)], slope, &q[own.clone()]);
                }
            }
        }
        [result, dq, dk, dv]
    }

    #[test]
    fn attention_is_what_float64_computes() -> Result<(), Error> {
        let gpu = pollster::block_on(Gpu::from_env())?;
        for head_width in [4, 32, 64, 80, 96, 128, 256] {
            let config = Config {
                blocks: 1,
                width: 64,
                hidden: 64,
                heads: HEADS as u32,
                key_heads: KEY_HEADS as u32,
                head_width,
                vocabulary: 64,
                context: 64,
                rates: Vec::new(),
                epsilon: 1e-5,
                tied: true,
            };
            let shaders = gpu.block_on(Shaders::compile(&gpu.device, &config, Element::F32))??;
            let width = head_width as usize;
            let [queries, keys] = [HEADS, KEY_HEADS].map(|heads| TOKENS * heads * width);
            let given = [queries, keys, keys, queries];
            let given: Vec<_> = given.iter().zip(0..).map(|(count, seed)| numbers(*count, seed)).collect();
            let own = [0, 1, 2, 3].map(|at: usize| &given[at][..]);
            let expected = expected(width, own);
            let buffers =
                own.iter().map(|numbers| gpu.upload("given", numbers)).collect::<Result<Vec<_>, _>>()?;
            let results = [queries, queries, keys, keys, TOKENS * HEADS, TOKENS * HEADS];
            let results =
                results.iter().map(|count| gpu.zeroed("result", *count)).collect::<Result<Vec<_>, _>>()?;
            let span = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("span"),
                size: 16,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let words = [TOKENS as u32, 0, SEQUENCE as u32, 0];
            gpu.queue.write_buffer(&span, 0, bytemuck::bytes_of(&words));
            let [[q, k, v, g], [result, dq, dk, dv]] =
                [&buffers, &results].map(|all| [&all[0], &all[1], &all[2], &all[3]]);
            let [sums, deltas] = [&results[4], &results[5]];
            let steps = [
                shaders.attention.bind(&gpu.device, &[&span, q, k, v, result, sums]),
                shaders.attention_query.bind(&gpu.device, &[&span, q, k, v, result, g, sums, dq, deltas]),
                shaders.attention_key.bind(&gpu.device, &[&span, q, k, v, g, sums, deltas, dk, dv]),
            ];
            gpu.submit(|pass| {
                for step in &steps {
                    step.encode(pass, TOKENS as u32);
                }
                Ok(())
            })?;
            for (buffer, expected) in results.iter().zip(&expected) {
                let own = gpu.read_blocking(buffer)?;
                let largest = expected.iter().copied().map(f64::abs).fold(0.0, f64::max);
                let off = own.iter().zip(expected).map(|(own, expected)| (f64::from(*own) - expected).abs());
                let off = off.fold(0.0, f64::max) / largest;
                println!("heads of {head_width}: up to {largest:.2}, off by {off:.1e} of it");
                assert!(largest > 0.1 && off < 4e-6, "heads of {head_width} are off by {off}");
            }
        }
        Ok(())
    }
}
