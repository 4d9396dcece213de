//! Forward on the device, from bytes to losses: the base, and adapters if there are any.

use hydralora::{Batch, Bound, Capacity, Config, Error, ForwardOptions, Operation, Plans, WriteMode, wgpu};

use crate::Result;
use crate::adapters::{Adapters, in_training};
use crate::base::{VOCABULARY, WIDTH};
use crate::corpus::WINDOW;
use crate::runtime::Runtime;
use crate::shader::Dispatch;

/// Forward for batches up to its capacity, prepared once.
pub struct Model {
    /// Almost all batches are full, so one plan suffices.
    pub capacity: Capacity,
    /// The number of tokens for every operation of the model, and of [`Backward`](crate::backward::Backward).
    pub batch: Batch,
    /// tokens x `WINDOW`, u32. [`Model::load`] fills it.
    windows: wgpu::Buffer,
    pub activations: Activations,
    embed: Dispatch,
    hidden: [Hidden; 2],
    head: Bound,
    cross_entropy: Dispatch,
}

/// The results of forward. Backward uses all of them but `losses`.
pub struct Activations {
    /// The inputs of fc1, fc2 and head: tokens x `WIDTH`.
    pub inputs: [wgpu::Buffer; 3],
    /// The outputs of fc1 and fc2, before gelu: tokens x `WIDTH`.
    pub outputs: [wgpu::Buffer; 2],
    /// `[h, w]` of the adapters: tokens x state length.
    pub saved: Option<[wgpu::Buffer; 2]>,
    /// The gradient of the mean loss, in place of the logits: tokens x `VOCABULARY`.
    pub dlogits: wgpu::Buffer,
    /// In nats, per token.
    pub losses: wgpu::Buffer,
}

/// fc1 or fc2 with its gelu.
struct Hidden {
    frozen: Bound,
    adapter: Option<Bound>,
    gelu: Dispatch,
}

impl Model {
    /// Only a model in training drops anything.
    pub async fn prepare(
        runtime: &Runtime,
        adapters: Option<&Adapters>,
        tokens: u32,
        training: bool,
    ) -> Result<Self> {
        let Runtime { gpu, kernels, shaders, base } = runtime;
        let capacity = Capacity { tokens, plans: Plans::One };
        let buffer = |name: &str, columns: u32| gpu.zeroed(name, tokens as usize * columns as usize);
        let wide = |name| buffer(name, WIDTH);
        let windows = buffer("windows", WINDOW as u32)?;
        let activations = Activations {
            inputs: [wide("fc1 input")?, wide("fc2 input")?, wide("head input")?],
            outputs: [wide("fc1 output")?, wide("fc2 output")?],
            saved: match adapters {
                None => None,
                Some(adapters) => {
                    let saved = || buffer("saved", adapters.config.state_len());
                    Some([saved()?, saved()?])
                }
            },
            dlogits: buffer("logits", VOCABULARY)?,
            losses: buffer("losses", 1)?,
        };
        let Activations { inputs, outputs, saved, dlogits, losses } = &activations;

        let options =
            ForwardOptions { write: WriteMode::Accumulate, save: true, ..ForwardOptions::default() };
        let hidden = async |layer: usize| -> Result<Hidden> {
            let (x, y) = (&inputs[layer], &outputs[layer]);
            let adapter = match (adapters, saved) {
                (Some(adapters), Some(saved)) => {
                    let config = if training {
                        in_training(&adapters.config, layer)
                    } else {
                        Config { dropout: None, ..adapters.config }
                    };
                    let prepared =
                        kernels.prepare_async(&Operation::Forward(options), &config, capacity).await?;
                    Some(prepared.bind(&[
                        ("x", x.into()),
                        ("parameters", (&adapters.parameters[layer]).into()),
                        ("y", y.into()),
                        ("saved", (&saved[layer]).into()),
                    ])?)
                }
                _ => None,
            };
            Ok(Hidden {
                frozen: base.hidden[layer].forward(kernels, capacity, x, y).await?,
                adapter,
                gelu: shaders.gelu.bind(&gpu.device, &[y, &inputs[layer + 1]]),
            })
        };
        Ok(Self {
            capacity,
            batch: Batch::new(kernels, tokens)?,
            embed: shaders.embed.bind(&gpu.device, &[&windows, &base.embedding, &inputs[0]]),
            hidden: [hidden(0).await?, hidden(1).await?],
            head: base.head.forward(kernels, capacity, &inputs[2], dlogits).await?,
            cross_entropy: shaders.cross_entropy.bind(&gpu.device, &[&windows, dlogits, losses]),
            windows,
            activations,
        })
    }

    /// Uploads the tokens of a batch: rows of `WINDOW` bytes, one in each u32.
    pub fn load(&mut self, queue: &wgpu::Queue, windows: &[u32]) -> Result<()> {
        self.batch.set(queue, (windows.len() / WINDOW) as u32)?;
        queue.write_buffer(&self.windows, 0, bytemuck::cast_slice(windows));
        Ok(())
    }

    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<(), Error> {
        let batch = &self.batch;
        self.embed.encode(pass, batch);
        for Hidden { frozen, adapter, gelu } in &self.hidden {
            frozen.encode(pass, batch)?;
            if let Some(adapter) = adapter {
                adapter.encode(pass, batch)?;
            }
            gelu.encode(pass, batch);
        }
        self.head.encode(pass, batch)?;
        self.cross_entropy.encode(pass, batch);
        Ok(())
    }
}
