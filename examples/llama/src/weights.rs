//! The frozen weights on the device.

use std::path::Path;

use clap::ValueEnum;
use hydralora::device::Gpu;
use hydralora::{Element, wgpu};

use crate::adapters::Projection;
use crate::config::Config;
use crate::error::Error;
use crate::matrix::{self, Matrix, binding_bytes};
use crate::source::Source;
use crate::tokenizer::Tokenizer;

/// A block's weights: matrices in the model's element, and the norms' vectors in f32.
pub struct Block {
    pub attention_norm: wgpu::Buffer,
    pub query: Matrix,
    pub key: Matrix,
    pub value: Matrix,
    pub output: Matrix,
    pub hidden_norm: wgpu::Buffer,
    pub gate: Matrix,
    pub up: Matrix,
    pub down: Matrix,
}

pub struct Weights {
    pub config: Config,
    pub element: Element,
    pub embedding: Matrix,
    pub blocks: Vec<Block>,
    pub norm: wgpu::Buffer,
    /// The logits' matrix, if it is not the embedding's.
    pub head: Option<Matrix>,
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
        let width = config.width;
        let table = [config.vocabulary, width];
        let shape = |projection: Projection| {
            let [d_in, d_out] = projection.shape(&config);
            [d_out, d_in]
        };
        let first = Projection::value_variants().iter().map(|own| (own.name(0), shape(*own)));
        for (module, shape) in first.chain([("model.embed_tokens".to_owned(), table)]) {
            matrix::parts(&source.name(&module), shape, element, binding_bytes(gpu))?;
        }
        let [matrices, norms] = config.numbers();
        announce(&config, matrices * element.bytes() + 4 * norms);
        let matrix = |module: &str, shape: [u32; 2]| -> Result<Matrix, Error> {
            Matrix::upload(gpu, module, shape, &source.read(module, shape, &config)?, element)
        };
        let norm = |module: &str| -> Result<wgpu::Buffer, Error> {
            Ok(gpu.upload(module, &source.read(module, [1, width], &config)?)?)
        };
        let block = |index: u32| -> Result<Block, Error> {
            let matrix = |projection: Projection| matrix(&projection.name(index), shape(projection));
            let norm = |name: &str| norm(&format!("model.layers.{index}.{name}"));
            Ok(Block {
                attention_norm: norm("input_layernorm")?,
                query: matrix(Projection::Query)?,
                key: matrix(Projection::Key)?,
                value: matrix(Projection::Value)?,
                output: matrix(Projection::Output)?,
                hidden_norm: norm("post_attention_layernorm")?,
                gate: matrix(Projection::Gate)?,
                up: matrix(Projection::Up)?,
                down: matrix(Projection::Down)?,
            })
        };
        let weights = Self {
            element,
            embedding: matrix("model.embed_tokens", table)?,
            blocks: (0..config.blocks).map(block).collect::<Result<_, _>>()?,
            norm: norm("model.norm")?,
            head: if config.tied { None } else { Some(matrix("lm_head", table)?) },
            config,
        };
        Ok((weights, tokenizer))
    }

    /// The logits' matrix.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}
