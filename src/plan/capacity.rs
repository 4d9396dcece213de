//! The capacity of a prepared operation.

/// The numbers of tokens that an operation is prepared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Capacity {
    /// The most tokens of a batch.
    pub tokens: u32,
    /// The plans for batches with fewer tokens.
    pub plans: Plans,
}

/// The plans for batches with different numbers of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Plans {
    /// Several plans, each the best for a number of tokens up to the capacity. Encoding takes the one that
    /// suits the batch. The order of sums may differ between plans.
    #[default]
    Several,
    /// One plan, the best for the capacity. This compiles the least.
    One,
    /// One plan whose order of sums depends neither on the number of tokens nor on the capacity: a token's y
    /// and dx have the same bits in any batch. Costs time with few tokens and with many.
    Invariant,
}

impl From<u32> for Capacity {
    /// Up to this many tokens, with the default plans.
    fn from(tokens: u32) -> Self {
        Self { tokens, plans: Plans::default() }
    }
}

/// The ratio between successive numbers of tokens that have separate plans.
const PLAN_STEP: u32 = 8;

impl Capacity {
    /// The numbers of tokens that have plans: with [`Plans::Several`], 1, 8, 64 and so on, and the capacity;
    /// otherwise only the capacity. A tuning table with choices for all of them covers every
    /// batch, but with [`Plans::Invariant`], which reads no table.
    pub fn counts(self) -> impl Iterator<Item = u32> {
        let Self { tokens, plans } = self;
        let first = if plans == Plans::Several { Some(1u32) } else { None };
        let fewer = std::iter::successors(first, |count| count.checked_mul(PLAN_STEP));
        fewer.take_while(move |&count| count < tokens).chain([tokens])
    }
}
