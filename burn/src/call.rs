//! One call of a layer: everything about it but its tensors.

use std::iter;

use burn::tensor::DType;
use hydralora::{
    BackwardInputOptions, BackwardParamsOptions, Config, Element, ForwardOptions, GateRows, Operation,
    WriteMode,
};

/// What the operations of a call have in common. Tensors that a call does not have are given as the parameters, which
/// costs nothing, so that operations have one signature.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Call {
    /// The layer. Its dropout is there only if this call drops.
    pub config: Config,
    /// Whether there is a base, to which the adapter's output is added.
    pub adds: bool,
    /// Whether the gates are given, and who shares a row of them.
    pub gates: Option<GateRows>,
    /// Whether there is a mask of tokens.
    pub masks: bool,
    /// Seed and step of dropout, the same in forward and backward.
    pub random: (u64, u32),
}

impl Call {
    /// The shape of y.
    pub fn y_shape(&self, tokens: usize) -> [usize; 2] {
        [tokens, self.config.d_out as usize]
    }

    /// The shape of `[h, w]` and `[dh, dl]`.
    pub fn state_shape(&self, tokens: usize) -> [usize; 2] {
        [tokens, self.config.state_len() as usize]
    }

    /// Forward, with or without what backward needs. `element` is that of x and y.
    pub fn forward(&self, element: Element, save: bool) -> Operation {
        Operation::Forward(ForwardOptions {
            write: if self.adds { WriteMode::Accumulate } else { WriteMode::Overwrite },
            save,
            x: element,
            y: element,
            gates: self.gates.unwrap_or_default(),
            mask: self.masks,
            ..ForwardOptions::default()
        })
    }

    /// Backward, to x and to the parameters as they are wanted. `element` is that of x, g and dx.
    pub fn backward(&self, element: Element, [dx, gradients]: [bool; 2]) -> Vec<Operation> {
        let to_parameters = gradients.then(|| self.backward_parameters(element));
        iter::once(self.backward_input(element, dx)).chain(to_parameters).collect()
    }

    /// Backward with respect to the input. `element` is that of g and dx.
    fn backward_input(&self, element: Element, wants_dx: bool) -> Operation {
        Operation::BackwardInput(BackwardInputOptions {
            g: element,
            dx: wants_dx.then_some((element, WriteMode::Overwrite)),
            mask: self.masks,
            ..BackwardInputOptions::default()
        })
    }

    /// Backward with respect to the parameters. `element` is that of x and g.
    fn backward_parameters(&self, element: Element) -> Operation {
        Operation::BackwardParams(BackwardParamsOptions {
            write: WriteMode::Overwrite,
            x: element,
            g: element,
            mask: self.masks,
            ..BackwardParamsOptions::default()
        })
    }
}

/// The library's name of an element type, if its kernels take it.
pub fn element(dtype: DType) -> Option<Element> {
    match dtype {
        DType::F32 => Some(Element::F32),
        DType::F16 => Some(Element::F16),
        DType::BF16 => Some(Element::Bf16),
        _ => None,
    }
}
