//! The frozen weights on the device.

use std::path::Path;

use hydralora::device::Gpu;
use hydralora::{Element, wgpu};

use crate::adapters::Projection;
use crate::config::Config;
use crate::error::Error;
use crate::source::Source;
use crate::tokenizer::Tokenizer;

/// A block's weights: `d_out` x `d_in` matrices in the model's element, and the norms' vectors in f32.
pub struct Block {
    pub attention_norm: wgpu::Buffer,
    pub query: wgpu::Buffer,
    pub key: wgpu::Buffer,
    pub value: wgpu::Buffer,
    pub output: wgpu::Buffer,
    pub hidden_norm: wgpu::Buffer,
    pub gate: wgpu::Buffer,
    pub up: wgpu::Buffer,
    pub down: wgpu::Buffer,
}

pub struct Weights {
    pub config: Config,
    pub element: Element,
    pub embedding: wgpu::Buffer,
    pub blocks: Vec<Block>,
    pub norm: wgpu::Buffer,
    /// The logits' matrix, if it is not the embedding's.
    pub head: Option<wgpu::Buffer>,
}

impl Weights {
    /// Loads a GGUF file or a Hugging Face folder, one tensor after the other, with its tokenizer. What the device cannot
    /// hold is refused before any memory is taken. `announce` is told the bytes of the weights before they are taken.
    pub fn load(
        gpu: &Gpu,
        path: &Path,
        element: Element,
        announce: impl FnOnce(&Config, u64),
    ) -> Result<(Self, Tokenizer), Error> {
        let source = Source::open(path)?;
        let (config, tokenizer) = (source.config()?, source.tokenizer()?);
        let limits = gpu.device.limits();
        let allowed = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size);
        let table = u64::from(config.vocabulary) * u64::from(config.width) * element.bytes();
        if table > allowed {
            return Err(Error::TooLarge { name: "token_embd.weight".to_owned(), needed: table, allowed });
        }
        let [matrices, norms] = config.numbers();
        announce(&config, matrices * element.bytes() + 4 * norms);
        let load = |name: &str, shape: [u32; 2], element| -> Result<wgpu::Buffer, Error> {
            Ok(gpu.upload_as(name, &source.read(name, shape, &config)?, element)?)
        };
        let width = config.width;
        let block = |index: u32| -> Result<Block, Error> {
            let matrix = |name: &str, projection: Projection| {
                let [d_in, d_out] = projection.shape(&config);
                load(&format!("blk.{index}.{name}.weight"), [d_out, d_in], element)
            };
            let norm = |name: &str| load(&format!("blk.{index}.{name}.weight"), [1, width], Element::F32);
            Ok(Block {
                attention_norm: norm("attn_norm")?,
                query: matrix("attn_q", Projection::Query)?,
                key: matrix("attn_k", Projection::Key)?,
                value: matrix("attn_v", Projection::Value)?,
                output: matrix("attn_output", Projection::Output)?,
                hidden_norm: norm("ffn_norm")?,
                gate: matrix("ffn_gate", Projection::Gate)?,
                up: matrix("ffn_up", Projection::Up)?,
                down: matrix("ffn_down", Projection::Down)?,
            })
        };
        let table = [config.vocabulary, width];
        let weights = Self {
            element,
            embedding: load("token_embd.weight", table, element)?,
            blocks: (0..config.blocks).map(block).collect::<Result<_, _>>()?,
            norm: load("output_norm.weight", [1, width], Element::F32)?,
            head: if config.tied { None } else { Some(load("output.weight", table, element)?) },
            config,
        };
        Ok((weights, tokenizer))
    }

    /// The logits' matrix.
    pub fn head(&self) -> &wgpu::Buffer {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}
