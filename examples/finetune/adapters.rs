//! The adapters of fc1 and fc2 on the device, packed into one buffer: one optimiser step is then one
//! operation, however many layers are adapted.

use hydralora::device::Gpu;
use hydralora::{Adapter, Config, Layout, Router, Tensor, wgpu};

use crate::Result;
use crate::base::{ADAPTED, WIDTH};

/// LoRA's alpha: the scaling is alpha / rank.
const ALPHA: f32 = 32.0;

/// 256 bytes, the strictest alignment of a storage binding that WebGPU allows a device.
const ALIGNMENT: usize = 64;

/// What both layers' adapters look like, and where they lie.
#[derive(Clone, Copy)]
pub struct Packing {
    pub config: Config,
    layout: Layout,
}

/// Adapters on the device.
pub struct Adapters {
    pub packing: Packing,
    pub parameters: wgpu::Buffer,
}

/// The configuration of each adapted layer. One expert is plain LoRA.
pub fn config(rank: u32, experts: u32) -> Config {
    Config {
        d_in: WIDTH,
        d_out: WIDTH,
        rank,
        experts,
        scaling: Config::lora_scaling(ALPHA, rank),
        router: Router::Input,
    }
}

/// Plain LoRA with about as many trainable parameters: the nearest rank that is a multiple of four,
/// as LoRA's ranks usually are, the larger of two that are equally near.
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

impl Packing {
    pub fn new(config: Config) -> Result<Self> {
        Ok(Self { config, layout: config.layout()? })
    }

    fn stride(&self) -> usize {
        self.layout.len().next_multiple_of(ALIGNMENT)
    }

    /// Elements of a buffer in this packing.
    pub fn elements(&self) -> usize {
        ADAPTED.len() * self.stride()
    }

    /// An adapted layer's part of a buffer in this packing.
    pub fn layer<'a>(&self, buffer: &'a wgpu::Buffer, layer: usize) -> Tensor<'a> {
        Tensor::new(buffer, 4 * (layer * self.stride()) as u64, self.layout.bytes())
    }
}

impl Adapters {
    /// Fresh adapters: the model starts as the base.
    pub fn initialise(gpu: &Gpu, config: Config, seed: u64) -> Result<Self> {
        let seed = seed.wrapping_mul(ADAPTED.len() as u64);
        let fresh = |layer| Adapter::initialise(&config, seed.wrapping_add(layer));
        Self::upload(gpu, config, &[fresh(0)?, fresh(1)?])
    }

    pub fn upload(gpu: &Gpu, config: Config, adapters: &[Adapter; 2]) -> Result<Self> {
        let packing = Packing::new(config)?;
        let mut packed = Vec::with_capacity(packing.elements());
        for (layer, adapter) in adapters.iter().enumerate() {
            packed.extend(packing.layout.pack(adapter)?);
            packed.resize((layer + 1) * packing.stride(), 0.0);
        }
        Ok(Self { packing, parameters: gpu.upload("adapters", &packed)? })
    }

    pub fn download(&self, gpu: &Gpu) -> Result<[Adapter; 2]> {
        let packed = gpu.read_blocking(&self.parameters)?;
        let Packing { layout, .. } = &self.packing;
        let unpack = |layer: usize| layout.unpack(&packed[layer * self.packing.stride()..][..layout.len()]);
        Ok([unpack(0)?, unpack(1)?])
    }

    /// An adapted layer's parameters.
    pub fn layer(&self, layer: usize) -> Tensor<'_> {
        self.packing.layer(&self.parameters, layer)
    }
}
