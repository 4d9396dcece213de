//! The choices that were measured to be best on a device. The planner prefers them to its predictions.

use std::collections::BTreeMap;

use super::Choice;
use crate::layer::{Config, Dropout, Gate, Operation};

/// The case that a choice was measured for: an operation, a layer without its scaling, and a number of
/// tokens, rounded up to the next power of two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
struct Key {
    operation: Operation,
    config: Config,
    tokens: u32,
}

impl Key {
    fn new(config: &Config, tokens: u32, operation: Operation) -> Self {
        let Config { d_in, d_out, .. } = *config;
        let dropout = config.drops().map(|Dropout { of, .. }| Dropout { of, ..Dropout::new(0.5) });
        let config = &Config { dropout, ..*config };
        let config = match operation {
            // Only the widths of a frozen layer matter.
            Operation::Linear(_) => Config { d_in, d_out, ..Config::DEFAULT },
            // One expert has no router, whatever the configuration says.
            _ if config.gate() == Gate::One => {
                Config { d_in, d_out, rank: config.rank, dropout, ..Config::DEFAULT }
            }
            _ => Config { scaling: 1.0, temperature: 1.0, ..*config },
        };
        let tokens = tokens.checked_next_power_of_two().unwrap_or(u32::MAX);
        Self { operation, config, tokens }
    }
}

/// A table of choices. It is empty by default; [`Tuner`](crate::tuner::Tuner) measures, saves and loads one.
///
/// A choice that does not fit a device is ignored, and no choice can take more scratch memory than the
/// planner's own bounds allow. A bad table can only make operations slow and change the order of their sums.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(from = "Vec<(Key, Choice)>", into = "Vec<(Key, Choice)>"))]
pub struct Tuning(BTreeMap<Key, Choice>);

#[cfg(feature = "serde")]
impl From<Vec<(Key, Choice)>> for Tuning {
    fn from(entries: Vec<(Key, Choice)>) -> Self {
        Self(entries.into_iter().collect())
    }
}

#[cfg(feature = "serde")]
impl From<Tuning> for Vec<(Key, Choice)> {
    fn from(tuning: Tuning) -> Self {
        tuning.0.into_iter().collect()
    }
}

impl Tuning {
    /// Prefers `choice` for this operation on this layer, for all numbers of tokens that have the same next
    /// power of two as `tokens`.
    pub fn set(&mut self, config: &Config, tokens: u32, operation: Operation, choice: Choice) {
        self.0.insert(Key::new(config, tokens, operation), choice);
    }

    /// The preferred choice, if there is one.
    #[must_use]
    pub fn get(&self, config: &Config, tokens: u32, operation: Operation) -> Option<Choice> {
        self.0.get(&Key::new(config, tokens, operation)).copied()
    }

    /// Number of choices in the table.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the table has no choices.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
