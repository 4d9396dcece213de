//! The frozen base: a byte-level language model that sees the last 16 bytes.
//!
//! logits = head(gelu(fc2(gelu(fc1(the 16 embeddings side by side)))))

use half::f16;
use hydralora::device::Gpu;
use hydralora::{
    Bound, Capacity, Config, Element, Kernels, LinearDirection, LinearOptions, Operation, Tensor, wgpu,
};
use safetensors::{Dtype, SafeTensors};

use crate::Result;
use crate::corpus::CONTEXT;

/// The number of different bytes.
pub const VOCABULARY: u32 = 256;
/// Length of a byte's embedding.
const EMBEDDING: u32 = 32;
/// Inputs and outputs of fc1 and fc2.
pub const WIDTH: u32 = CONTEXT as u32 * EMBEDDING;

/// The layers that have adapters, in forward order.
pub const ADAPTED: [&str; 2] = ["fc1", "fc2"];

/// The base's weights on the device.
pub struct Base {
    pub embedding: wgpu::Buffer,
    /// fc1 and fc2, each `WIDTH` x `WIDTH`.
    pub hidden: [Frozen; 2],
    /// `VOCABULARY` x `WIDTH`.
    pub head: Frozen,
    pub parameters: u64,
}

/// A frozen linear layer.
pub struct Frozen {
    /// Its widths.
    config: Config,
    weight: wgpu::Buffer,
    /// The type of the weight's elements.
    element: Element,
    bias: wgpu::Buffer,
}

impl Base {
    /// Loads the base from its file's bytes. `element` is the type in which the matrices of fc1, fc2 and head are stored.
    pub fn load(gpu: &Gpu, file: &[u8], element: Element) -> Result<Self> {
        let file = SafeTensors::deserialize(file)
            .map_err(|error| format!("the base is no safetensors file: {error}"))?;
        let mut parameters = 0;
        let mut upload = |name: &str, shape: &[u32], element: Element| -> Result<wgpu::Buffer> {
            let tensor = file.tensor(name).map_err(|error| format!("the base: {error}"))?;
            let expected: Vec<usize> = shape.iter().map(|&length| length as usize).collect();
            if tensor.dtype() != Dtype::F16 || tensor.shape() != expected {
                return Err(format!(
                    "the base: {name} is {:?} {:?}, but must be F16 {expected:?}",
                    tensor.dtype(),
                    tensor.shape()
                )
                .into());
            }
            let values: Vec<f32> =
                tensor.data().chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
            parameters += values.len() as u64;
            Ok(gpu.upload_as(name, &values, element)?)
        };
        let embedding = upload("embed.weight", &[VOCABULARY, EMBEDDING], Element::F32)?;
        let mut frozen = |name: &str, outputs: u32| -> Result<Frozen> {
            Ok(Frozen {
                config: Config { d_in: WIDTH, d_out: outputs, ..Config::default() },
                weight: upload(&format!("{name}.weight"), &[outputs, WIDTH], element)?,
                element,
                bias: upload(&format!("{name}.bias"), &[outputs], Element::F32)?,
            })
        };
        let hidden = [frozen(ADAPTED[0], WIDTH)?, frozen(ADAPTED[1], WIDTH)?];
        let head = frozen("head", VOCABULARY)?;
        Ok(Self { embedding, hidden, head, parameters })
    }
}

impl Frozen {
    pub fn weight(&self) -> Tensor<'_> {
        Tensor::from(&self.weight).of(self.element)
    }

    /// y = W0 x + bias
    pub async fn forward(
        &self,
        kernels: &Kernels,
        capacity: Capacity,
        x: &wgpu::Buffer,
        y: &wgpu::Buffer,
    ) -> Result<Bound> {
        let options = LinearOptions { bias: true, weight: self.element, ..LinearOptions::default() };
        let prepared = kernels.prepare_async(&Operation::Linear(options), &self.config, capacity).await?;
        let tensors =
            [("x", x.into()), ("weight", self.weight()), ("bias", (&self.bias).into()), ("y", y.into())];
        Ok(prepared.bind(&tensors)?)
    }

    /// dx = W0^T g
    pub async fn backward(
        &self,
        kernels: &Kernels,
        capacity: Capacity,
        g: &wgpu::Buffer,
        dx: &wgpu::Buffer,
    ) -> Result<Bound> {
        let options = LinearOptions {
            direction: LinearDirection::Backward,
            weight: self.element,
            ..LinearOptions::default()
        };
        let prepared = kernels.prepare_async(&Operation::Linear(options), &self.config, capacity).await?;
        Ok(prepared.bind(&[("g", g.into()), ("weight", self.weight()), ("dx", dx.into())])?)
    }
}
