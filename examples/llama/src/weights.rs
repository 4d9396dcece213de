//! The frozen weights on the device.

use hydralora::device::Gpu;
use hydralora::{Element, wgpu};

use crate::adapters::Projection;
use crate::config::Config;
use crate::error::Error;
use crate::matrix::{self, Matrix, binding_bytes};
use crate::source::Source;

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

/// The random numbers of a model without weights, which are repeated.
const NOISE: u32 = 1 << 20;

impl Weights {
    /// Uploads a model, one tensor after the other. What the device cannot hold is refused before any memory is taken.
    pub fn load(gpu: &Gpu, source: &Source, element: Element) -> Result<Self, Error> {
        let config = &source.config;
        check(gpu, config, element, |module| source.name(module))?;
        let matrix = |module: &str, shape: [u32; 2]| {
            Matrix::upload(gpu, module, shape, &source.read(module, shape)?, element)
        };
        let norm = |module: &str| Ok(gpu.upload(module, &source.read(module, [1, config.width])?)?);
        Self::new(config.clone(), element, matrix, norm)
    }

    /// Random numbers, for measurements. They need neither files nor a host's memory.
    pub fn random(gpu: &Gpu, config: &Config, element: Element) -> Result<Self, Error> {
        check(gpu, config, element, ToOwned::to_owned)?;
        let noise = |at: u32| f64::from(at.wrapping_mul(2_654_435_761)) / f64::from(u32::MAX) - 0.5;
        let noise: Vec<f32> = (0..NOISE).map(|at| 0.1 * noise(at) as f32).collect();
        let noise = gpu.upload_as("noise", &noise, element)?;
        let matrix = |module: &str, shape: [u32; 2]| Matrix::repeat(gpu, module, shape, &noise, element);
        let norm = |module: &str| Ok(gpu.upload(module, &vec![1.0; config.width as usize])?);
        Self::new(config.clone(), element, matrix, norm)
    }

    fn new(
        config: Config,
        element: Element,
        matrix: impl Fn(&str, [u32; 2]) -> Result<Matrix, Error>,
        norm: impl Fn(&str) -> Result<wgpu::Buffer, Error>,
    ) -> Result<Self, Error> {
        let block = |index: u32| -> Result<Block, Error> {
            let matrix = |own: Projection| matrix(&own.name(index), rows_first(own.shape(&config)));
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
        let table = [config.vocabulary, config.width];
        Ok(Self {
            element,
            embedding: matrix("model.embed_tokens", table)?,
            blocks: (0..config.blocks).map(block).collect::<Result<_, _>>()?,
            norm: norm("model.norm")?,
            head: if config.tied { None } else { Some(matrix("lm_head", table)?) },
            config,
        })
    }

    /// The logits' matrix.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}

/// Refuses a matrix that no parts can hold, under the name that the files have for it.
fn check(gpu: &Gpu, config: &Config, element: Element, name: impl Fn(&str) -> String) -> Result<(), Error> {
    let blocks = Projection::ALL.into_iter();
    let blocks = blocks.map(|own| (own.name(0), rows_first(own.shape(config))));
    let table = ("model.embed_tokens".to_owned(), [config.vocabulary, config.width]);
    for (module, shape) in blocks.chain([table]) {
        matrix::parts(&name(&module), shape, element, binding_bytes(gpu))?;
    }
    Ok(())
}

fn rows_first([d_in, d_out]: [u32; 2]) -> [u32; 2] {
    [d_out, d_in]
}
