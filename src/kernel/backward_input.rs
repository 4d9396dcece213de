//! The parts of `shaders/backward_input.wgsl`.

use super::compose::fused_parts;
use super::{Access, BindingKind, Parts, ShrinkFrom};
use crate::element::Element;
use crate::layer::{Gate, Router, WriteMode};
use crate::plan::Tile;

/// What of an input backward is fixed when its shader is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackwardInputShader {
    pub(crate) rank: u32,
    pub(crate) experts: u32,
    pub(crate) gate: Gate,
    pub(crate) tile: Tile,
    pub(crate) g: ShrinkFrom,
    /// How dx is accessed and written, where it is wanted.
    pub(crate) dx: Option<(Access, WriteMode)>,
}

impl BackwardInputShader {
    pub(super) fn parts(&self) -> Parts {
        let Self { rank, experts, gate, tile, g, dx } = *self;
        let source = include_str!("../../shaders/part/source_g.wgsl");
        let parts = fused_parts("backward_input", [rank, experts, rank * experts], gate, &tile)
            .source("g", "dims.d_out", g, &tile, source)
            .groups("parameters", Element::F32, BindingKind::Read)
            .buffer("saved", BindingKind::Read)
            .buffer("dstate", BindingKind::Write)
            .text(include_str!("../../shaders/backward_input.wgsl"))
            .text(match gate {
                Gate::One | Gate::Router(Router::Input) => {
                    include_str!("../../shaders/part/router_input_backward.wgsl")
                }
                Gate::Router(Router::Latent) => {
                    include_str!("../../shaders/part/router_latent_backward.wgsl")
                }
            });
        match dx {
            Some((access, write)) => parts
                .write_mode(write)
                .matrix("x_gradient", ["dims.d_in", "dims.target_stride"], access, BindingKind::Write)
                .coefficients(tile.holders)
                .text(include_str!("../../shaders/part/expand.wgsl"))
                .text(include_str!("../../shaders/part/input_gradient.wgsl")),
            None => parts.text(include_str!("../../shaders/part/no_input_gradient.wgsl")),
        }
    }
}
