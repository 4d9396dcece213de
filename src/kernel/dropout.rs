//! The files of dropout and of the mask of tokens.

use super::compose::{Parts, wgsl};
use crate::layer::{Dropout, DropoutOf};
use crate::plan::DeviceProfile;

/// What a kernel drops, and how it multiplies for its random numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Drops {
    pub(crate) of: DropoutOf,
    pub(crate) wide_products: bool,
}

impl Drops {
    pub(crate) fn new(dropout: Dropout, device: &DeviceProfile) -> Self {
        Self { of: dropout.of, wide_products: device.wide_products }
    }

    pub(crate) fn of_input(self) -> bool {
        self.of == DropoutOf::Input
    }
}

impl Parts {
    /// Adds `is_dropped` and `with_drops` for a shrink, or what takes its columns.
    pub(super) fn shrink_drops(self, drops: Option<Drops>) -> Self {
        match drops.filter(|drops| drops.of_input()) {
            Some(drops) => self.drop_words(drops).file(wgsl!("dropout/shrink_x.wgsl")),
            None => self.file(wgsl!("dropout/shrink_none.wgsl")),
        }
    }

    /// Adds `kept_latent`.
    pub(super) fn h_drops(self, drops: Option<Drops>) -> Self {
        let drops = drops.filter(|drops| !drops.of_input());
        let parts = self.flag("DROPS_H", drops.is_some());
        match drops {
            Some(drops) => parts.drop_words(drops).file(wgsl!("dropout/h.wgsl")),
            None => parts.file(wgsl!("dropout/h_none.wgsl")),
        }
    }

    /// Adds `drop_sums` for an expand: of dx, if x is dropped.
    pub(super) fn expand_drops(self, drops: Option<Drops>) -> Self {
        let drops = drops.filter(|drops| drops.of_input());
        let parts = self.flag("LATE_TARGET", drops.is_some());
        match drops {
            Some(drops) => parts.drop_words(drops).file(wgsl!("dropout/expand_dx.wgsl")),
            None => parts.file(wgsl!("dropout/expand_none.wgsl")),
        }
    }

    /// Adds what the products of `tensor` need.
    pub(super) fn outer_drops(self, tensor: &'static str, drops: Option<Drops>) -> Self {
        match drops.filter(|drops| tensor == "x" && drops.of_input()) {
            Some(drops) => self.drop_words(drops).file_of(wgsl!("dropout/outer_x.wgsl"), tensor),
            None => self.file_of(wgsl!("dropout/outer_none.wgsl"), tensor),
        }
    }

    fn drop_words(self, drops: Drops) -> Self {
        if self.has("dropout/words.wgsl") {
            return self;
        }
        let product = if drops.wide_products {
            wgsl!("random/product_wide.wgsl")
        } else {
            wgsl!("random/product_halves.wgsl")
        };
        self.file(product).file(wgsl!("random/philox.wgsl")).file(wgsl!("dropout/words.wgsl"))
    }

    /// Adds `takes` and `four_take`, and the next binding if there is a mask.
    pub(super) fn mask(self, mask: bool) -> Self {
        let parts = self.flag("MASKED", mask);
        if !mask {
            return parts.file(wgsl!("mask/none.wgsl"));
        }
        parts.optional("mask", "MASK_BINDING").file(wgsl!("mask/given.wgsl"))
    }
}
