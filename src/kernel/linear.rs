//! The parts of `shaders/kernel/linear.wgsl`, `linear_direct.wgsl` and `linear_reduce.wgsl`.

use super::compose::wgsl;
use super::{Access, BindingKind, Parts, Varying};
use crate::layer::{LinearDirection, WriteMode};
use crate::plan::LinearWay;
use crate::plan::linear::LinearTile;

/// Compile-time options of linear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearShader {
    pub(crate) direction: LinearDirection,
    pub(crate) tile: LinearTile,
    pub(crate) source: Access,
    pub(crate) weight: Access,
    /// Where sums go; `None` for the sums of a split.
    pub(crate) target: Option<LinearTarget>,
}

/// What becomes of complete sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearTarget {
    pub(crate) access: Access,
    pub(crate) bias: bool,
    pub(crate) write: WriteMode,
}

/// Compile-time options of the dispatch that adds up the splits of linear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearReduceShader {
    pub(crate) target: LinearTarget,
}

impl LinearTarget {
    /// Adds the bindings from the target's on, and what becomes of sums.
    fn add_to(self, parts: Parts) -> Parts {
        let Self { access, bias, write } = self;
        let binding = parts.bindings.len() as u32;
        let parts = parts
            .write_mode(write)
            .constant("TARGET_BINDING", binding)
            // `target` is a reserved word in WGSL.
            .matrix("targets", ["dims.target_width", "dims.target_stride"], access, BindingKind::Write)
            .file(wgsl!("sink/target.wgsl"));
        if bias {
            parts.buffer("bias", BindingKind::Read).file(wgsl!("epilogue/bias.wgsl"))
        } else {
            parts.file(wgsl!("epilogue/none.wgsl"))
        }
    }
}

impl LinearShader {
    pub(super) fn parts(&self) -> Parts {
        let Self { direction, tile, source, weight, target } = *self;
        let (weight_width, product, matrix_product) = match direction {
            LinearDirection::Forward => (
                "dims.source_width",
                wgsl!("product/linear_forward.wgsl"),
                wgsl!("product/matrix_forward.wgsl"),
            ),
            LinearDirection::Backward => (
                "dims.target_width",
                wgsl!("product/linear_backward.wgsl"),
                wgsl!("product/matrix_backward.wgsl"),
            ),
        };
        // All ways bind the same tensors, but cooperative matrices read them as they are.
        let parts = |label| {
            Parts::new(label)
                .workgroup(tile.threads)
                .varying(Varying::Batch)
                .file(wgsl!("uniform/linear.wgsl"))
        };
        let in_threads = |label| {
            parts(label)
                .constant("THREAD_TOKENS", tile.thread_tokens)
                .constant("THREAD_QUADS", tile.thread_quads)
                .constant("COLUMN_THREADS", tile.column_threads)
                .constant("TILE_QUADS", tile.quads)
                .matrix("source", ["dims.source_width", "dims.source_stride"], source, BindingKind::Read)
                .matrix("weight", [weight_width; 2], weight, BindingKind::Read)
                .file(product)
        };
        let parts = match tile.way {
            LinearWay::Tiled { depth } => in_threads("linear")
                .constant("DEPTH", depth)
                .flag("INNER_ROWS", direction == LinearDirection::Forward)
                .file(wgsl!("kernel/linear.wgsl")),
            LinearWay::Direct { lanes, step, .. } => in_threads("linear_direct")
                .constant("LANES", lanes)
                .constant("STEP", step)
                .constant("SCRATCH", tile.scratch)
                .threads(tile.broadcast_lanes > 1)
                .coefficients(tile.broadcast_lanes)
                .file(wgsl!("kernel/linear_direct.wgsl")),
            LinearWay::Matrices { size } => parts("linear_matrix")
                .buffer("source", BindingKind::Read)
                .buffer("weight", BindingKind::Read)
                .matrices(size, [wgsl!("kernel/linear_matrix.wgsl"), matrix_product]),
        };
        sink(parts, target)
    }
}

/// Adds what becomes of sums: complete ones go to the target, and those of a split to scratch memory.
fn sink(parts: Parts, target: Option<LinearTarget>) -> Parts {
    if let Some(target) = target {
        return target.add_to(parts);
    }
    let binding = parts.bindings.len() as u32;
    parts
        .constant("TARGET_BINDING", binding)
        .buffer("linear_sums", BindingKind::Write)
        .file(wgsl!("sink/sums.wgsl"))
}

impl LinearReduceShader {
    pub(super) fn parts(&self) -> Parts {
        let parts = Parts::new("linear_reduce")
            .varying(Varying::Batch)
            .file(wgsl!("uniform/linear.wgsl"))
            .buffer("linear_sums", BindingKind::Read)
            .file(wgsl!("product/splits.wgsl"))
            .file(wgsl!("kernel/linear_reduce.wgsl"));
        self.target.add_to(parts)
    }
}
