//! Sizes: from shape, number of tokens and device limits to tile sizes and grids. Pure: only
//! `DeviceProfile::of` needs a device.

mod capacity;
mod choice;
mod cost;
mod device;
pub(crate) mod fused;
mod grid;
pub(crate) mod linear;
pub(crate) mod outer;
mod profile;
mod quirks;
mod tile;
mod tuning;

pub use capacity::{Capacity, Plans};
pub use choice::Choice;
pub(crate) use cost::Traffic;
pub use device::DeviceNumbers;
pub use fused::FusedChoice;
pub use grid::Grid;
pub(crate) use grid::{fold, share};
pub use linear::{LinearChoice, LinearWay};
pub use outer::OuterChoice;
pub use profile::DeviceProfile;
pub use tile::Tile;
pub(crate) use tile::WORKGROUP;
pub use tuning::Tuning;

pub(crate) use crate::element::MOST_BYTES;
use crate::error::Error;

/// Advice if a grid of token tiles is too large.
pub(crate) const FEWER_TOKENS: &str = "process fewer tokens at a time";

/// `most`, half of it, and so on down to 1.
pub(crate) fn halvings(most: u32) -> impl Iterator<Item = u32> {
    std::iter::successors(Some(most.max(1)), |&n| (n > 1).then_some(n / 2))
}

/// The plans in the order of their predicted costs. Plans with equal costs keep their order.
fn cheapest_first<T>(plans: Vec<T>, cost: impl Fn(&T) -> f64) -> Vec<T> {
    let mut plans: Vec<_> = plans.into_iter().map(|plan| (cost(&plan), plan)).collect();
    plans.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    plans.into_iter().map(|(_, plan)| plan).collect()
}

/// Refuses a choice that no kernel supports, which may come from a file.
fn check_choice(name: &'static str, value: u32, possible: bool) -> Result<(), Error> {
    let value = f64::from(value);
    if possible { Ok(()) } else { Err(Error::number(name, value, "one of the plan's candidates")) }
}
