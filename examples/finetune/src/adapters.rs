//! The adapters of fc1 and fc2 on the device.

use std::path::Path;

use hydralora::checkpoint::{self, Checkpoint};
use hydralora::device::Gpu;
use hydralora::{Adapter, Config, Dropout, Layout, Sharing, Weighting, wgpu};

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

/// A method from the family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Variant {
    /// One A for all experts, weighted by the softmax of the router's logits
    Hydralora,
    /// An A for each expert, likewise weighted
    Loramoe,
    /// An A for each expert, of which each token takes two, whose weights are divided by their sum
    Mola,
}

impl Variant {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hydralora => "HydraLoRA",
            Self::Loramoe => "LoRAMoE",
            Self::Mola => "MoLA",
        }
    }
}

/// The configuration of each adapted layer. One expert is plain LoRA.
pub fn config(rank: u32, experts: u32) -> Config {
    let scaling = Config::lora_scaling(ALPHA, rank);
    Config { d_in: WIDTH, d_out: WIDTH, rank, experts, scaling, ..Config::default() }
}

/// A layer of `config` as a variant has it, whose tokens take `top` experts, if not as many as usual.
pub fn varied(config: Config, variant: Variant, top: Option<u32>) -> Config {
    let (a, usual) = match variant {
        Variant::Hydralora => (Sharing::Shared, None),
        Variant::Loramoe => (Sharing::Separate, None),
        Variant::Mola => (Sharing::Separate, Some(2.min(config.experts))),
    };
    let weighting = top.or(usual).map_or(Weighting::Softmax, |k| Weighting::TopK { k, renormalise: true });
    Config { a, weighting, ..config }
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

    pub fn download(&self, gpu: &Gpu) -> Result<[Adapter; 2]> {
        let download = |layer: usize| self.layout.unpack(&gpu.read_blocking(&self.parameters[layer])?);
        Ok([download(0)?, download(1)?])
    }

    /// The names and layers of both modules.
    pub fn modules(&self) -> [(&'static str, Config); 2] {
        ADAPTED.map(|name| (name, self.config))
    }

    /// Saves both adapters into a folder, with the reference code's names.
    pub fn save(&self, gpu: &Gpu, folder: &Path) -> Result<()> {
        let [fc1, fc2] = self.download(gpu)?;
        let of = |name: &str| if name == ADAPTED[0] { fc1.clone() } else { fc2.clone() };
        Ok(checkpoint::save(folder, &self.modules(), |name| Ok(of(name)))?)
    }

    /// The adapters that a folder has.
    pub fn load(gpu: &Gpu, folder: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open(folder)?;
        let config = checkpoint.modules().first().ok_or("there is no module")?.config;
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
