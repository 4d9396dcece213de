//! Forward on the device, from bytes to losses: the base, and adapters where there are some.

use hydralora::{Forward, ForwardDescriptor, Linear, LinearDescriptor, LinearDirection, WriteMode, wgpu};

use crate::Result;
use crate::adapters::Adapters;
use crate::base::{Frozen, VOCABULARY, WIDTH};
use crate::corpus::WINDOW;
use crate::runtime::Runtime;
use crate::shader::Dispatch;

/// Forward over a fixed number of tokens, prepared once.
pub struct Model {
    pub tokens: u32,
    /// tokens x `WINDOW`, u32: what [`Model::load`] fills.
    windows: wgpu::Buffer,
    pub activations: Activations,
    embed: Dispatch,
    hidden: [Hidden; 2],
    head: Linear,
    cross_entropy: Dispatch,
}

/// What forward leaves behind. Everything but `losses` is there for backward.
pub struct Activations {
    /// What each of fc1, fc2 and head reads: tokens x `WIDTH`.
    pub inputs: [wgpu::Buffer; 3],
    /// What fc1 and fc2 return, before gelu: tokens x `WIDTH`.
    pub outputs: [wgpu::Buffer; 2],
    /// `[h, w]` of the adapters: tokens x state length.
    pub saved: Option<[wgpu::Buffer; 2]>,
    /// The gradient of the mean loss at the logits, which it has replaced: tokens x `VOCABULARY`.
    pub dlogits: wgpu::Buffer,
    /// In nats, per token.
    pub losses: wgpu::Buffer,
}

/// fc1 or fc2 with its gelu.
struct Hidden {
    frozen: Linear,
    adapter: Option<Forward>,
    gelu: Dispatch,
}

impl Model {
    pub fn prepare(runtime: &Runtime, adapters: Option<&Adapters>, tokens: u32) -> Result<Self> {
        let Runtime { gpu, kernels, shaders, base } = runtime;
        let buffer = |name: &str, columns: u32| gpu.zeroed(name, tokens as usize * columns as usize);
        let wide = |name| buffer(name, WIDTH);
        let windows = buffer("windows", WINDOW as u32)?;
        let activations = Activations {
            inputs: [wide("fc1 input")?, wide("fc2 input")?, wide("head input")?],
            outputs: [wide("fc1 output")?, wide("fc2 output")?],
            saved: match adapters {
                None => None,
                Some(adapters) => {
                    let saved = || buffer("saved", adapters.packing.config.state_len());
                    Some([saved()?, saved()?])
                }
            },
            dlogits: buffer("logits", VOCABULARY)?,
            losses: buffer("losses", 1)?,
        };
        let Activations { inputs, outputs, saved, dlogits, losses } = &activations;

        let linear = |layer: &Frozen, d_out, source: &wgpu::Buffer, target: &wgpu::Buffer| {
            Linear::prepare(
                kernels,
                &LinearDescriptor {
                    direction: LinearDirection::Forward,
                    d_in: WIDTH,
                    d_out,
                    tokens,
                    source: source.into(),
                    weight: (&layer.weight).into(),
                    bias: Some((&layer.bias).into()),
                    target: target.into(),
                    write: WriteMode::Overwrite,
                },
            )
        };
        let hidden = |layer: usize| -> Result<Hidden> {
            let adapter = match (adapters, saved) {
                (Some(adapters), Some(saved)) => Some(Forward::prepare(
                    kernels,
                    &ForwardDescriptor {
                        config: adapters.packing.config,
                        tokens,
                        x: (&inputs[layer]).into(),
                        parameters: adapters.layer(layer),
                        y: (&outputs[layer]).into(),
                        write: WriteMode::Accumulate,
                        saved: Some((&saved[layer]).into()),
                    },
                )?),
                _ => None,
            };
            Ok(Hidden {
                frozen: linear(&base.hidden[layer], WIDTH, &inputs[layer], &outputs[layer])?,
                adapter,
                gelu: shaders.gelu.bind(
                    &gpu.device,
                    &[&outputs[layer], &inputs[layer + 1]],
                    gelu_workgroups(tokens),
                ),
            })
        };
        Ok(Self {
            tokens,
            embed: shaders.embed.bind(&gpu.device, &[&windows, &base.embedding, &inputs[0]], tokens),
            hidden: [hidden(0)?, hidden(1)?],
            head: linear(&base.head, VOCABULARY, &inputs[2], dlogits)?,
            cross_entropy: shaders.cross_entropy.bind(&gpu.device, &[&windows, dlogits, losses], tokens),
            windows,
            activations,
        })
    }

    /// Uploads tokens: rows of `WINDOW` bytes, widened. Fewer than the model's leave the rest as it was.
    pub fn load(&self, queue: &wgpu::Queue, windows: &[u32]) {
        queue.write_buffer(&self.windows, 0, bytemuck::cast_slice(windows));
    }

    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.embed.encode(pass);
        for Hidden { frozen, adapter, gelu } in &self.hidden {
            frozen.encode(pass);
            if let Some(adapter) = adapter {
                adapter.encode(pass);
            }
            gelu.encode(pass);
        }
        self.head.encode(pass);
        self.cross_entropy.encode(pass);
    }
}

/// The grid of gelu and its backward: 64 threads with a vec4 each.
pub fn gelu_workgroups(tokens: u32) -> u32 {
    (tokens * WIDTH).div_ceil(256)
}
