//! The files of dropout and of the mask of tokens.

use super::compose::{Parts, wgsl};
use crate::layer::DropoutOf;

impl Parts {
    /// Adds `is_dropped` and `with_drops` for a shrink, or what takes its columns.
    pub(super) fn shrink_drops(self, of_x: bool) -> Self {
        if of_x {
            self.drop_words().file(wgsl!("dropout/shrink_x.wgsl"))
        } else {
            self.file(wgsl!("dropout/shrink_none.wgsl"))
        }
    }

    /// Adds `kept_latent`.
    pub(super) fn h_drops(self, dropout: Option<DropoutOf>) -> Self {
        let drops = dropout == Some(DropoutOf::Latent);
        let parts = self.flag("DROPS_H", drops);
        if drops {
            parts.drop_words().file(wgsl!("dropout/h.wgsl"))
        } else {
            parts.file(wgsl!("dropout/h_none.wgsl"))
        }
    }

    /// Adds `drop_sums` for an expand, which is that of dx or not.
    pub(super) fn expand_drops(self, of_dx: bool) -> Self {
        let parts = self.flag("LATE_TARGET", of_dx);
        if of_dx {
            parts.drop_words().file(wgsl!("dropout/expand_dx.wgsl"))
        } else {
            parts.file(wgsl!("dropout/expand_none.wgsl"))
        }
    }

    /// Adds what the products of `tensor` need.
    pub(super) fn outer_drops(self, tensor: &'static str, of_x: bool) -> Self {
        if of_x {
            self.drop_words().file_of(wgsl!("dropout/outer_x.wgsl"), tensor)
        } else {
            self.file_of(wgsl!("dropout/outer_none.wgsl"), tensor)
        }
    }

    fn drop_words(self) -> Self {
        if self.has("dropout/words.wgsl") {
            return self;
        }
        self.file(wgsl!("random/philox.wgsl")).file(wgsl!("dropout/words.wgsl"))
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
