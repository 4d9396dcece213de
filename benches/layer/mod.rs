//! A training step of one adapter.

use hydralora::{
    BackwardInput, BackwardInputDescriptor, BackwardParams, BackwardParamsDescriptor, Config, Error, Forward,
    ForwardDescriptor, Kernels, Tensor, WriteMode, wgpu,
};

/// The tensors of a training step.
#[derive(Clone, Copy)]
pub struct Tensors<'a> {
    pub x: Tensor<'a>,
    pub g: Tensor<'a>,
    pub parameters: Tensor<'a>,
    pub y: Tensor<'a>,
    pub dx: Tensor<'a>,
    pub saved: Tensor<'a>,
    pub dstate: Tensor<'a>,
    pub gradients: Tensor<'a>,
}

/// Whether a step's results are overwritten or added to.
#[derive(Clone, Copy)]
pub struct Writes {
    /// y and dx.
    pub activations: WriteMode,
    pub gradients: WriteMode,
}

impl Writes {
    pub fn all(write: WriteMode) -> Self {
        Self { activations: write, gradients: write }
    }
}

/// A prepared training step.
pub struct Layer {
    pub forward: Forward,
    pub backward_input: BackwardInput,
    pub backward_params: BackwardParams,
}

impl Layer {
    pub fn prepare(
        kernels: &Kernels,
        config: Config,
        tokens: u32,
        tensors: &Tensors<'_>,
        writes: Writes,
    ) -> Result<Self, Error> {
        let Tensors { x, g, parameters, y, dx, saved, dstate, gradients } = *tensors;
        let write = writes.activations;
        let forward = ForwardDescriptor { config, tokens, x, parameters, y, write, saved: Some(saved) };
        let backward_input =
            BackwardInputDescriptor { config, tokens, g, parameters, saved, dx: Some(dx), write, dstate };
        let write = writes.gradients;
        let backward_params =
            BackwardParamsDescriptor { config, tokens, x, g, saved, dstate, gradients, write, scratch: None };
        Ok(Self {
            forward: Forward::prepare(kernels, &forward)?,
            backward_input: BackwardInput::prepare(kernels, &backward_input)?,
            backward_params: BackwardParams::prepare(kernels, &backward_params)?,
        })
    }

    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.forward.encode(pass);
        self.backward_input.encode(pass);
        self.backward_params.encode(pass);
    }
}
