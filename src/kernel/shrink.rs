//! The parts of `shaders/kernel/shrink.wgsl`.

use super::compose::wgsl;
use super::{Access, BindingKind, Parts, Varying};
use crate::element::Element;
use crate::plan::Tile;

/// Compile-time options of a separate shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ShrinkShader {
    pub(crate) columns: u32,
    pub(crate) tile: Tile,
    pub(crate) source: Access,
    pub(crate) parameters: Element,
    /// The columns that see x with elements dropped: those of A, or none.
    pub(crate) dropped_columns: u32,
}

impl ShrinkShader {
    pub(super) fn parts(&self) -> Parts {
        let Self { columns, tile, source, parameters, dropped_columns } = *self;
        let drops = dropped_columns > 0;
        let parts = Parts::new("shrink").varying(Varying::Batch).tile(columns, &tile);
        let parts = if drops { parts.constant("A_ROWS", dropped_columns) } else { parts };
        parts
            .shrink_drops(drops)
            .matrix("source", ["dims.source_width", "dims.source_stride"], source, BindingKind::Read)
            .vecs("parameters", parameters, BindingKind::Read)
            .buffer("shrink_sums", BindingKind::Write)
            .shrink(&tile, wgsl!("kernel/shrink.wgsl"))
    }
}
