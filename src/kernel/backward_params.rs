//! The parts of `shaders/kernel/backward_params.wgsl` and `backward_params_reduce.wgsl`.

use super::compose::wgsl;
use super::{Access, BindingKind, Drops, Parts, Varying};
use crate::layer::{Gate, WriteMode};

/// Compile-time options of `backward_params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackwardParamsShader {
    pub(crate) a_rows: u32,
    pub(crate) rank: u32,
    pub(crate) experts: u32,
    pub(crate) gate: Gate,
    /// Rows that a thread keeps of the shrink block, the expand block and the gate block; 0 for a block
    /// that is not in the dispatch.
    pub(crate) rows: [u32; 3],
    /// Threads of a workgroup.
    pub(crate) threads: u32,
    /// Tokens whose loads a thread issues together.
    pub(crate) tokens_at_once: u32,
    /// Lanes that broadcast one coefficient each; 1 if every lane reads all of them.
    pub(crate) broadcast_lanes: u32,
    pub(crate) x: Access,
    pub(crate) g: Access,
    pub(crate) write: WriteMode,
    pub(crate) drops: Option<Drops>,
    pub(crate) mask: bool,
}

/// Compile-time options of `backward_params_reduce`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReduceShader {
    pub(crate) write: WriteMode,
}

impl BackwardParamsShader {
    pub(super) fn parts(&self) -> Parts {
        let Self { a_rows, rank, experts, gate, rows, threads, .. } = *self;
        let Self { tokens_at_once, broadcast_lanes, x, g, write, drops, mask, .. } = *self;
        let drops_x = drops.is_some_and(Drops::of_input);
        let parts = Parts::new("backward_params")
            .workgroup(threads)
            .varying(Varying::Batch)
            .constant("TOKENS_AT_ONCE", tokens_at_once)
            .constant("RANK", rank)
            .constant("A_ROWS", a_rows)
            .constant("EXPERTS", experts)
            .constant("STATE", gate.state_len(a_rows, experts))
            .constant("SHRINK_ROWS", gate.shrink_rows(a_rows, experts))
            .constant("LATENT_RANK", gate.latent_columns(rank))
            .constant("GATE_COLUMNS", gate.block_columns(rank))
            .flag("SIGNS", gate.chooses())
            .flag("DROPS_X", drops_x)
            .flag("TOKEN_QUADS", drops_x)
            .write_mode(write)
            .matrix("x", ["dims.d_in", "dims.x_stride"], x, BindingKind::Read)
            .matrix("g", ["dims.d_out", "dims.g_stride"], g, BindingKind::Read)
            .buffer("saved", BindingKind::Read)
            .buffer("dstate", BindingKind::Read)
            .buffer("gradients", BindingKind::Write)
            .threads(broadcast_lanes > 1)
            .coefficients(broadcast_lanes)
            .h_drops(drops)
            .mask(mask)
            .file(wgsl!("kernel/backward_params.wgsl"));
        ["x", "g", "h"].into_iter().zip(rows).fold(parts, |parts, (tensor, rows)| match rows {
            0 => parts.file_of(wgsl!("product/no_outer.wgsl"), tensor),
            _ => parts
                .constant(&format!("ROWS_{tensor}"), rows)
                .outer_drops(tensor, drops)
                .file_of(wgsl!("product/outer.wgsl"), tensor),
        })
    }
}

impl ReduceShader {
    pub(super) fn parts(self) -> Parts {
        Parts::new("backward_params_reduce")
            .write_mode(self.write)
            .buffer("copies", BindingKind::Read)
            .buffer("gradients", BindingKind::Write)
            .file(wgsl!("product/splits.wgsl"))
            .file(wgsl!("kernel/backward_params_reduce.wgsl"))
    }
}
