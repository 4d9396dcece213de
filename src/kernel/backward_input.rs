//! The parts of `shaders/kernel/backward_input.wgsl`.

use super::compose::{fused_parts, wgsl};
use super::{Access, BindingKind, Drops, Parts, ShrinkFrom};
use crate::element::Element;
use crate::layer::{Gate, GateGradient, WriteMode};
use crate::plan::Tile;

/// Compile-time options of `backward_input`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackwardInputShader {
    pub(crate) a_rows: u32,
    pub(crate) rank: u32,
    pub(crate) experts: u32,
    pub(crate) gate: Gate,
    pub(crate) tile: Tile,
    pub(crate) g: ShrinkFrom,
    /// How dx is accessed and written, if it is wanted.
    pub(crate) dx: Option<(Access, WriteMode)>,
    /// What the caller adds a gradient to: by its rows, which are in the uniform.
    pub(crate) gate_gradient: Option<GateGradient>,
    pub(crate) drops: Option<Drops>,
    pub(crate) mask: bool,
}

impl BackwardInputShader {
    pub(super) fn parts(&self) -> Parts {
        let Self { a_rows, rank, experts, gate, tile, g, dx, gate_gradient, drops, mask } = *self;
        let parts = fused_parts("backward_input", [a_rows, rank, experts, rank * experts], gate, &tile)
            .source("g", "dims.d_out", g, &tile, wgsl!("source/g.wgsl"))
            .vecs("parameters", Element::F32, BindingKind::Read)
            .buffer("saved", BindingKind::Read)
            .buffer("dstate", BindingKind::Write)
            .h_drops(drops)
            .shrink_drops(None)
            .file(wgsl!("kernel/backward_input.wgsl"));
        let parts = match dx {
            Some((access, write)) => parts
                .write_mode(write)
                .matrix("x_gradient", ["dims.d_in", "dims.target_stride"], access, BindingKind::Write)
                .expand_drops(drops)
                .expand(&tile)
                .file(wgsl!("product/input_gradient.wgsl")),
            None => parts.file(wgsl!("product/no_input_gradient.wgsl")),
        };
        parts.gate_backward(gate, rank, gate_gradient).mask(mask)
    }
}
