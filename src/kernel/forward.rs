//! The parts of `shaders/kernel/forward.wgsl`.

use super::compose::{fused_parts, wgsl};
use super::{Access, BindingKind, Drops, Parts, ShrinkFrom};
use crate::element::Element;
use crate::layer::{Gate, WriteMode};
use crate::plan::Tile;

/// Compile-time options of forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ForwardShader {
    pub(crate) a_rows: u32,
    pub(crate) rank: u32,
    pub(crate) experts: u32,
    pub(crate) gate: Gate,
    pub(crate) tile: Tile,
    pub(crate) x: ShrinkFrom,
    pub(crate) parameters: Element,
    pub(crate) y: Access,
    pub(crate) write: WriteMode,
    pub(crate) save: bool,
    pub(crate) drops: Option<Drops>,
    pub(crate) mask: bool,
}

impl ForwardShader {
    pub(super) fn parts(&self) -> Parts {
        let Self { a_rows, rank, experts, gate, tile, x, parameters, y, write, save, drops, mask } = *self;
        let parts =
            fused_parts("forward", [a_rows, rank, experts, gate.shrink_rows(a_rows, experts)], gate, &tile)
                .write_mode(write)
                .source("x", "dims.d_in", x, &tile, wgsl!("source/x.wgsl"))
                .vecs("parameters", parameters, BindingKind::Read)
                .matrix("y", ["dims.d_out", "dims.target_stride"], y, BindingKind::Write)
                .file(wgsl!("kernel/forward.wgsl"))
                .shrink_drops(drops)
                .h_drops(drops)
                .expand_drops(None)
                .expand(&tile);
        let parts = if save {
            parts.buffer("saved", BindingKind::Write).file(wgsl!("state/save.wgsl"))
        } else {
            parts.file(wgsl!("state/skip.wgsl"))
        };
        parts.gate(gate, rank).mask(mask)
    }
}
