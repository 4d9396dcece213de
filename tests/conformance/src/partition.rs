//! A part of the trials, so that several runs share them.

use std::str::FromStr;

use crate::case;
use crate::suite::Plan;

/// One of several parts of about the same size. All modes of a case belong to the same part, since they share
/// pipelines.
#[derive(Debug, Clone, Copy)]
pub struct Partition {
    part: u64,
    parts: u64,
}

impl Partition {
    /// Whether a trial belongs to this part.
    #[must_use]
    pub fn contains(self, trial: &Plan) -> bool {
        trial.seed.unwrap_or_else(|| case::hash(&trial.name)) % self.parts == self.part - 1
    }
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
        match numbers {
            Some((part, parts)) if (1..=parts).contains(&part) => Ok(Self { part, parts }),
            _ => Err("expected a part and the number of parts, from 1/1 up, such as 1/3".to_owned()),
        }
    }
}
