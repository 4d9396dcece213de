//! The bytes that an adapter takes.

use crate::error::Error;
use crate::layer::{Config, Needs, Operation};
use crate::plan::Capacity;
use crate::planner::Planner;

/// The bytes of all tensors that a training step binds besides x, y, g and dx, which are the caller's anyway:
/// for one adapter, or for a [`Stack`](crate::Stack). Beyond these, only uniforms of less than 64 bytes each
/// are allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory {
    /// The packed parameters, f32.
    pub parameters: u64,
    /// Their gradients.
    pub gradients: u64,
    /// `AdamW`'s two moments.
    pub moments: u64,
    /// `[h, w]`, which forward saves for backward: tokens x [`Config::state_len`] x 4.
    pub saved: u64,
    /// `[dh, dl]`, which `backward_input` passes on to `backward_params`.
    pub dstate: u64,
    /// Scratch memory, counted once because operations can share it: copies of the gradients when the tokens
    /// are split, or the sums that a separate shrink writes.
    pub scratch: u64,
    /// What a clipping optimiser allocates for the gradients' norm. 0 from [`Memory::new`]: ask
    /// [`AdamW::bytes`](crate::AdamW::bytes).
    pub optimiser: u64,
}

impl Memory {
    /// The bytes for batches of up to `capacity` tokens, with these operations planned by `planner`:
    /// [`Operation::training_step`] gives those of the usual step. Scratch memory depends on the operations;
    /// the rest is counted as for training, whichever they are.
    ///
    /// # Errors
    /// A zero dimension, or a shape that does not fit the device's limits.
    pub fn new(
        config: &Config,
        capacity: impl Into<Capacity>,
        operations: &[Operation],
        planner: &Planner,
    ) -> Result<Self, Error> {
        let layout = config.layout()?;
        let capacity = capacity.into();
        let needs = Needs::of(operations);
        let alignment = u64::from(planner.profile.limits.min_storage_buffer_offset_alignment).max(1);
        let mut scratch = 0;
        for operation in operations {
            for recording in planner.plan_all(operation, config, capacity)? {
                scratch = scratch.max(recording.scratch_layout(alignment).1);
            }
        }
        let state = config.state_bytes(capacity.tokens);
        let wanted = |wanted: bool, bytes: u64| if wanted { bytes } else { 0 };
        Ok(Self {
            parameters: needs.parameters.unwrap_or_default().bytes() * layout.len() as u64,
            gradients: wanted(needs.gradients, layout.bytes()),
            moments: wanted(needs.gradients, 2 * layout.bytes()),
            saved: wanted(needs.saved, state),
            dstate: wanted(needs.dstate, state),
            scratch,
            optimiser: 0,
        })
    }

    /// The sum of all of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self { parameters, gradients, moments, saved, dstate, scratch, optimiser } = *self;
        parameters + gradients + moments + saved + dstate + scratch + optimiser
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::element::Element;
    use crate::layer::Router;
    use crate::plan::DeviceProfile;

    #[test]
    fn a_projection_of_llama_2_7b() {
        let config = Config {
            d_in: 4096,
            d_out: 4096,
            rank: 8,
            experts: 4,
            scaling: 2.0,
            router: Router::Input,
            ..Default::default()
        };
        // One workgroup keeps this device busy, so there are no copies of the gradients.
        let planner = |busy| Planner::new(DeviceProfile::new(wgpu::Limits::default(), busy));
        let step = Operation::training_step(Element::F32);
        let memory = Memory::new(&config, 1024, &step, &planner(1)).expect("it fits");
        let parameters = 4 * ((8 + 4) * 4096 + 4 * 8 * 4096);
        let state = 1024 * (8 + 4) * 4;
        let expected = Memory {
            parameters,
            gradients: parameters,
            moments: 2 * parameters,
            saved: state,
            dstate: state,
            // At most the sums of a shrink that is not split: 32 columns of backward's.
            scratch: memory.scratch.min(1024 * 32 * 4),
            optimiser: 0,
        };
        assert_eq!(memory, expected);
        assert_eq!(memory.total(), 4 * parameters + 2 * state + memory.scratch);
        let wide = Memory::new(&config, 1024, &step, &planner(256));
        let scratch = wide.expect("it fits").scratch;
        assert!(
            scratch > 0 && scratch.is_multiple_of(parameters),
            "whole copies of the gradients: {scratch}"
        );
        // One token on a wide device: one vec4 for each column of each split.
        let few = Memory::new(&config, 1, &step, &planner(256));
        let sums = few.expect("it fits").scratch;
        assert!(sums > 0 && sums.is_multiple_of(16) && sums <= 16 * 16 * (12 + 32), "{sums}");
    }
}
