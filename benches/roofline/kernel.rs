//! Each kernel by itself.

use hydralora::{Element, Error, Work, wgpu};
use hydralora_benches::contest::Ours;
use hydralora_benches::layer;

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
    pub fn encode(self, ours: &Ours, pass: &mut wgpu::ComputePass<'_>) -> Result<(), Error> {
        for (layer, adamw) in &ours.layers {
            match self {
                Self::Forward => layer.forward.encode(pass, &ours.batch)?,
                Self::BackwardInput => layer.backward_input.encode(pass, &ours.batch)?,
                Self::BackwardParams => layer.backward_params.encode(pass, &ours.batch)?,
                Self::AdamW => adamw.encode(pass),
            }
        }
        Ok(())
    }

    /// The least that it has to do, with activations of type `element`.
    pub fn least_work(self, ours: &Ours, element: Element) -> Result<Work, Error> {
        let Ours { config, batch, layout, .. } = ours;
        let [forward, backward_input, backward_params] = layer::operations(element);
        let operation = match self {
            Self::Forward => forward,
            Self::BackwardInput => backward_input,
            Self::BackwardParams => backward_params,
            // Reads parameters, gradients and both moments; writes all but the gradients.
            Self::AdamW => return Ok(Work { bytes: 7 * layout.bytes(), flops: 15 * layout.len() as u64 }),
        };
        operation.least_work(config, batch.tokens())
    }
}
