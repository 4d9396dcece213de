//! The parts of `shaders/forward.wgsl`.

use super::compose::fused_parts;
use super::{Access, BindingKind, Parts, ShrinkFrom};
use crate::element::Element;
use crate::layer::{Gate, Router, WriteMode};
use crate::plan::Tile;

/// What of a forward is fixed when its shader is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ForwardShader {
    pub(crate) rank: u32,
    pub(crate) experts: u32,
    pub(crate) gate: Gate,
    pub(crate) tile: Tile,
    pub(crate) x: ShrinkFrom,
    pub(crate) parameters: Element,
    pub(crate) y: Access,
    pub(crate) write: WriteMode,
    pub(crate) save: bool,
}

impl ForwardShader {
    pub(super) fn parts(&self) -> Parts {
        let Self { rank, experts, gate, tile, x, parameters, y, write, save } = *self;
        let shrink_rows = gate.shrink_rows(rank, experts);
        let source = include_str!("../../shaders/part/source_x.wgsl");
        let parts = fused_parts("forward", [rank, experts, shrink_rows], gate, &tile)
            .write_mode(write)
            .source("x", "dims.d_in", x, &tile, source)
            .groups("parameters", parameters, BindingKind::Read)
            .matrix("y", ["dims.d_out", "dims.target_stride"], y, BindingKind::Write)
            .text(include_str!("../../shaders/forward.wgsl"))
            .coefficients(tile.holders)
            .text(include_str!("../../shaders/part/expand.wgsl"))
            .text(match gate {
                Gate::One | Gate::Router(Router::Input) => {
                    include_str!("../../shaders/part/router_input.wgsl")
                }
                Gate::Router(Router::Latent) => include_str!("../../shaders/part/router_latent.wgsl"),
            });
        if save {
            parts.buffer("saved", BindingKind::Write).text(include_str!("../../shaders/part/save_state.wgsl"))
        } else {
            parts.text(include_str!("../../shaders/part/skip_state.wgsl"))
        }
    }
}
