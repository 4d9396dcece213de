//! What is demanded of loops.

use super::Gpu;

pub(super) fn missed(_: &Gpu) -> Vec<String> {
    Vec::new()
}
