//! Each kernel by itself.

use hydralora::op::{
    BackwardInputOptions, BackwardInputPlan, BackwardParamsOptions, BackwardParamsPlan, ForwardOptions,
    ForwardPlan,
};
use hydralora::{Element, Error, Work, WriteMode, wgpu};

use crate::contest::Ours;

/// One of the library's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    Forward,
    BackwardInput,
    BackwardParams,
    AdamW,
}

impl Kernel {
    pub const ALL: [Self; 4] = [Self::Forward, Self::BackwardInput, Self::BackwardParams, Self::AdamW];

    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::BackwardInput => "backward_input",
            Self::BackwardParams => "backward_params",
            Self::AdamW => "adamw",
        }
    }

    /// Records the kernel for every set of inputs.
    pub fn encode(self, ours: &Ours, pass: &mut wgpu::ComputePass<'_>) {
        for (layer, adamw) in &ours.layers {
            match self {
                Self::Forward => layer.forward.encode(pass),
                Self::BackwardInput => layer.backward_input.encode(pass),
                Self::BackwardParams => layer.backward_params.encode(pass),
                Self::AdamW => adamw.encode(pass),
            }
        }
    }

    /// The least that it has to do, with activations of type `element`.
    pub fn least_work(self, ours: &Ours, element: Element) -> Result<Work, Error> {
        let Ours { config, tokens, layout, .. } = ours;
        let write = WriteMode::Overwrite;
        Ok(match self {
            Self::Forward => {
                let parameters = Element::F32;
                let options = ForwardOptions { write, save: true, x: element, parameters, y: element };
                ForwardPlan::least_work(config, *tokens, &options)?
            }
            Self::BackwardInput => {
                let options = BackwardInputOptions { g: element, dx: Some((element, write)) };
                BackwardInputPlan::least_work(config, *tokens, &options)?
            }
            Self::BackwardParams => {
                let options = BackwardParamsOptions { write, x: element, g: element };
                BackwardParamsPlan::least_work(config, *tokens, &options)?
            }
            // Reads parameters, gradients and both moments; writes all but the gradients.
            Self::AdamW => Work { bytes: 7 * layout.bytes(), flops: 15 * layout.len() as u64 },
        })
    }
}
