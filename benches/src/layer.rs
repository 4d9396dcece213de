//! A training step of one adapter.

use hydralora::{
    BackwardInputOptions, BackwardParamsOptions, Batch, Bound, Capacity, Config, Element, Error,
    ForwardOptions, Kernels, Operation, Plans, Tensor, WriteMode, wgpu,
};

/// The tensors of a training step. Activations have one element type, everything else is f32.
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

/// A training step, bound to its tensors.
pub struct Layer {
    pub forward: Bound,
    pub backward_input: Bound,
    pub backward_params: Bound,
}

/// The operations of a training step that overwrites its results or adds to them, with activations of type
/// `element`.
pub fn operations(element: Element, write: WriteMode) -> [Operation; 3] {
    let (x, y, g) = (element, element, element);
    [
        Operation::Forward(ForwardOptions {
            write,
            save: true,
            x,
            parameters: Element::F32,
            y,
            ..Default::default()
        }),
        Operation::BackwardInput(BackwardInputOptions { g, dx: Some((x, write)), ..Default::default() }),
        Operation::BackwardParams(BackwardParamsOptions { write, x, g, ..Default::default() }),
    ]
}

/// Exactly so many tokens.
pub fn capacity(tokens: u32) -> Capacity {
    Capacity { tokens, plans: Plans::One }
}

impl Layer {
    /// Binds the step for exactly `tokens` tokens.
    pub fn bind(
        kernels: &Kernels,
        config: &Config,
        tokens: u32,
        write: WriteMode,
        tensors: &Tensors<'_>,
    ) -> Result<Self, Error> {
        let Tensors { x, g, parameters, y, dx, saved, dstate, gradients } = *tensors;
        let capacity = capacity(tokens);
        let bind = |operation, tensors: &[_]| kernels.prepare(&operation, config, capacity)?.bind(tensors);
        let [x, g, parameters, y] = [("x", x), ("g", g), ("parameters", parameters), ("y", y)];
        let [dx, saved, dstate] = [("dx", dx), ("saved", saved), ("dstate", dstate)];
        let [forward, backward_input, backward_params] = operations(tensors.x.element(), write);
        Ok(Self {
            forward: bind(forward, &[x, parameters, y, saved])?,
            backward_input: bind(backward_input, &[g, parameters, saved, dstate, dx])?,
            backward_params: bind(backward_params, &[x, g, saved, dstate, ("gradients", gradients)])?,
        })
    }

    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, batch: &Batch) -> Result<(), Error> {
        self.forward.encode(pass, batch)?;
        self.backward_input.encode(pass, batch)?;
        self.backward_params.encode(pass, batch)
    }
}
