//! The parts of `shaders/kernel/shrink.wgsl`.

use super::compose::wgsl;
use super::{Access, BindingKind, Drops, Parts, Varying};
use crate::element::Element;
use crate::plan::Tile;

/// Compile-time options of a separate shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShrinkShader {
    pub(crate) columns: u32,
    pub(crate) tile: Tile,
    pub(crate) source: Access,
    pub(crate) parameters: Element,
    /// What is dropped of x, and the columns that see it so: those of A.
    pub(crate) drops: Option<(Drops, u32)>,
}

impl ShrinkShader {
    pub(super) fn parts(&self) -> Parts {
        let Self { columns, tile, source, parameters, drops } = *self;
        let parts = Parts::new("shrink").varying(Varying::Batch).tile(columns, &tile);
        let parts = match drops {
            Some((_, columns)) => parts.constant("A_ROWS", columns),
            None => parts,
        };
        parts
            .shrink_drops(drops.map(|(drops, _)| drops))
            .matrix("source", ["dims.source_width", "dims.source_stride"], source, BindingKind::Read)
            .vecs("parameters", parameters, BindingKind::Read)
            .buffer("shrink_sums", BindingKind::Write)
            .shrink(&tile, wgsl!("kernel/shrink.wgsl"))
    }
}
