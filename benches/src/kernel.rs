//! Each kernel by itself.

use hydralora::{Error, Operation, Work, WriteMode, wgpu};

use crate::contest::Ours;
use crate::layer;

/// One of the library's kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kernel {
    Forward,
    BackwardInput,
    BackwardParams,
    AdamW,
    /// With the norm of the gradients before it.
    ClippingAdamW,
}

impl Kernel {
    pub const ALL: [Self; 5] =
        [Self::Forward, Self::BackwardInput, Self::BackwardParams, Self::AdamW, Self::ClippingAdamW];

    pub fn name(self) -> &'static str {
        match self {
            Self::Forward => "forward",
            Self::BackwardInput => "backward_input",
            Self::BackwardParams => "backward_params",
            Self::AdamW => "adamw",
            Self::ClippingAdamW => "adamw, clipping",
        }
    }

    pub fn is_optimiser(self) -> bool {
        matches!(self, Self::AdamW | Self::ClippingAdamW)
    }

    /// Records the kernel for every set of inputs.
    pub fn encode(self, ours: &Ours, pass: &mut wgpu::ComputePass<'_>) -> Result<(), Error> {
        for ((layer, adamw), clipping) in ours.layers.iter().zip(&ours.clipping) {
            match self {
                Self::Forward => layer.forward.encode(pass, &ours.batch)?,
                Self::BackwardInput => layer.backward_input.encode(pass, &ours.batch)?,
                Self::BackwardParams => layer.backward_params.encode(pass, &ours.batch)?,
                Self::AdamW => adamw.encode(pass),
                Self::ClippingAdamW => clipping.encode(pass),
            }
        }
        Ok(())
    }

    /// The operation, for kernels that have a plan.
    pub fn operation(self, ours: &Ours) -> Option<Operation> {
        let [forward, backward_input, backward_params] =
            layer::operations(ours.setting.element, ours.setting.write);
        match self {
            Self::Forward => Some(forward),
            Self::BackwardInput => Some(backward_input),
            Self::BackwardParams => Some(backward_params),
            Self::AdamW | Self::ClippingAdamW => None,
        }
    }

    /// The least that it has to do.
    pub fn least_work(self, ours: &Ours) -> Result<Work, Error> {
        let Ours { config, batch, layout, .. } = ours;
        if let Some(operation) = self.operation(ours) {
            return operation.least_work(config, batch.tokens());
        }
        // Reads parameters, gradients and both moments; writes all but the gradients. The norm reads those once more.
        let (passes, flops) = if self == Self::ClippingAdamW { (8, 17) } else { (7, 15) };
        Ok(Work { bytes: passes * layout.bytes(), flops: flops * layout.len() as u64 })
    }

    /// Bytes that it touches in all sets together, which caches had to hold to answer.
    pub fn working_set(self, ours: &Ours) -> Result<u64, Error> {
        let Ours { config, batch, layout, setting, .. } = ours;
        let [forward, backward_input, backward_params] =
            layer::operations(setting.element, WriteMode::Overwrite);
        let sets = u64::from(ours.sets());
        let least = |operation: Operation| operation.least_work(config, batch.tokens());
        Ok(match self {
            Self::Forward => sets * least(forward)?.bytes,
            Self::BackwardInput => sets * least(backward_input)?.bytes,
            // The gradients are the same in all sets.
            Self::BackwardParams => sets * (least(backward_params)?.bytes - layout.bytes()) + layout.bytes(),
            // So are the moments.
            Self::AdamW | Self::ClippingAdamW => (sets + 3) * layout.bytes(),
        })
    }
}
