//! For how many tokens an operation is prepared.

/// How many tokens an operation is prepared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Capacity {
    /// The most tokens of a batch.
    pub tokens: u32,
    /// How batches of fewer tokens run.
    pub plans: Plans,
}

/// How batches of different numbers of tokens run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Plans {
    /// Each as is best for about so many tokens: a plan for each of some numbers up to the capacity, of which
    /// encoding takes the one for the batch. The order of sums may differ from one to the next.
    #[default]
    Several,
    /// All as is best for the capacity. The least to compile.
    One,
    /// All in one order of sums, whatever the number of tokens and the capacity: a token's y and dx have the
    /// same bits in any batch. Costs time with few tokens and with many.
    Invariant,
}

impl From<u32> for Capacity {
    /// Up to so many tokens, as fast as may be.
    fn from(tokens: u32) -> Self {
        Self { tokens, plans: Plans::default() }
    }
}
