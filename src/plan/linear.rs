//! Tiles of the frozen layer.

use super::{DeviceProfile, FEWER_TOKENS, Grid, check_choice, halvings};
use crate::error::{Error, Limit};

/// A workgroup is SIDE x SIDE threads.
pub(crate) const SIDE: u32 = 8;
/// The most tokens that a thread computes.
const MOST_THREAD_TOKENS: u32 = 8;
/// vec4s of target columns that a thread computes.
pub(crate) const THREAD_QUADS: u32 = 2;
/// vec4s of the inner dimension in a tile.
pub(crate) const DEPTH: u32 = 4;

/// The choices of a plan of `linear`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LinearChoice {
    /// Tokens that a thread computes: 1, 2, 4 or 8.
    pub thread_tokens: u32,
}

/// The inputs of a plan of `linear`.
#[derive(Debug, Clone)]
pub(crate) struct LinearProblem {
    pub(crate) tokens: u32,
    /// vec4s in a row of the target.
    pub(crate) target_vecs: u32,
}

impl LinearProblem {
    /// The choices, the best predicted one first.
    pub(crate) fn choices(&self) -> impl Iterator<Item = LinearChoice> {
        let most = self.tokens.div_ceil(SIDE).min(MOST_THREAD_TOKENS).next_power_of_two();
        halvings(most).map(|thread_tokens| LinearChoice { thread_tokens })
    }

    /// Bytes of workgroup memory.
    pub(crate) fn memory(choice: LinearChoice) -> u64 {
        let LinearChoice { thread_tokens } = choice;
        16 * u64::from(DEPTH) * u64::from(SIDE * thread_tokens + 4 * SIDE * THREAD_QUADS)
    }

    /// The grid of a choice, if the choice is possible and fits the device.
    pub(crate) fn place(&self, choice: LinearChoice, device: &DeviceProfile) -> Result<Grid, Error> {
        let LinearChoice { thread_tokens } = choice;
        let possible = thread_tokens.is_power_of_two() && thread_tokens <= MOST_THREAD_TOKENS;
        check_choice("thread_tokens", thread_tokens, possible)?;
        let limits = &device.limits;
        let columns = self.target_vecs.div_ceil(SIDE * THREAD_QUADS);
        Error::check_limit(
            "linear's grid (blocks of target columns)",
            Limit::ComputeWorkgroupsPerDimension,
            u64::from(columns),
            u64::from(limits.max_compute_workgroups_per_dimension),
            "use a narrower layer",
        )?;
        Error::check_limit(
            "linear workgroup memory (bytes)",
            Limit::ComputeWorkgroupStorageSize,
            Self::memory(choice),
            u64::from(limits.max_compute_workgroup_storage_size),
            "request a device with at least WebGPU's default limits",
        )?;
        Grid::tiles("linear", columns, SIDE * thread_tokens, self.tokens, limits, FEWER_TOKENS)
    }
}
