//! The adapters of fc1 and fc2 on the device.

use hydralora::checkpoint::{self, Checkpoint, CheckpointError};
use hydralora::device::Gpu;
use hydralora::{Adapter, Config, Dropout, Layout, wgpu};

use crate::Result;
use crate::base::{ADAPTED, WIDTH};

/// LoRA's alpha: the scaling is alpha / rank.
const ALPHA: f32 = 32.0;

/// The adapters on the device. All have the same configuration.
pub struct Adapters {
    pub config: Config,
    layout: Layout,
    /// The packed parameters of each adapted layer.
    pub parameters: [wgpu::Buffer; 2],
}

/// The configuration of each adapted layer. One expert is plain LoRA.
pub fn config(rank: u32, experts: u32) -> Config {
    let scaling = Config::lora_scaling(ALPHA, rank);
    Config { d_in: WIDTH, d_out: WIDTH, rank, experts, scaling, ..Config::default() }
}

/// The adapter's layer in training: with dropout, each layer with a stream of its own.
pub fn in_training(config: &Config, layer: usize) -> Config {
    let dropout = config.dropout.map(|dropout| Dropout { stream: layer as u32, ..dropout });
    Config { dropout, ..*config }
}

/// Plain LoRA with about as many trainable parameters. Its rank is the nearest multiple of four, as is usual
/// for LoRA; of two that are equally near, the larger.
pub fn comparable_lora(config: &Config) -> Config {
    let wanted = config.parameter_count();
    let four_ranks = self::config(4, 1).parameter_count();
    let fours = (2 * wanted + four_ranks) / (2 * four_ranks);
    self::config(4 * fours.max(1) as u32, 1)
}

/// Trainable parameters of all adapted layers.
pub fn parameter_count(config: &Config) -> u64 {
    ADAPTED.len() as u64 * config.parameter_count()
}

impl Adapters {
    /// Creates fresh adapters, with which the model computes the same as the base.
    pub fn initialise(gpu: &Gpu, config: Config, seed: u64) -> Result<Self> {
        let seed = seed.wrapping_mul(ADAPTED.len() as u64);
        let fresh = |layer| Adapter::initialise(&config, seed.wrapping_add(layer));
        Self::upload(gpu, config, &[fresh(0)?, fresh(1)?])
    }

    pub fn upload(gpu: &Gpu, config: Config, adapters: &[Adapter; 2]) -> Result<Self> {
        let layout = config.layout()?;
        let upload = |layer: usize| gpu.upload(ADAPTED[layer], &layout.pack(&adapters[layer])?);
        Ok(Self { config, layout, parameters: [upload(0)?, upload(1)?] })
    }

    pub async fn download(&self, gpu: &Gpu) -> Result<[Adapter; 2]> {
        let download = async |layer: usize| self.layout.unpack(&gpu.read(&self.parameters[layer]).await?);
        Ok([download(0).await?, download(1).await?])
    }

    /// The names and layers of both modules.
    pub fn modules(&self) -> [(&'static str, Config); 2] {
        ADAPTED.map(|name| (name, self.config))
    }

    /// Both adapters as a file of their own, with the reference code's names.
    pub async fn to_bytes(&self, gpu: &Gpu) -> Result<Vec<u8>> {
        let adapters = self.download(gpu).await?;
        Ok(checkpoint::to_bytes(&self.modules(), |name| {
            Ok(adapters[usize::from(name != ADAPTED[0])].clone())
        })?)
    }

    /// The adapters that a checkpoint has, if they fit the base.
    pub fn load(gpu: &Gpu, checkpoint: &Checkpoint) -> Result<Self> {
        let missing = |module: &str| CheckpointError::UnknownModule { module: module.to_owned() };
        let config = checkpoint.modules().first().ok_or_else(|| missing(ADAPTED[0]))?.config;
        for module in checkpoint.modules() {
            if !ADAPTED.contains(&module.name.as_str())
                || [module.config.d_in, module.config.d_out] != [WIDTH; 2]
            {
                return Err(missing(&format!("{}, {} of this model", module.name, module.config)).into());
            }
        }
        let adapters = [checkpoint.adapter(ADAPTED[0])?, checkpoint.adapter(ADAPTED[1])?];
        Self::upload(gpu, config, &adapters)
    }

    /// The layout of each adapter's packed parameters.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The number of elements of a layer's packed parameters, and of their gradients.
    pub fn elements(&self) -> usize {
        self.layout.len()
    }
}
