//! The parts of `shaders/kernel/linear.wgsl`.

use super::compose::wgsl;
use super::{Access, BindingKind, Parts, Varying};
use crate::layer::{LinearDirection, WriteMode};
use crate::plan::linear::{DEPTH, SIDE, THREAD_QUADS};

/// Compile-time options of linear.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LinearShader {
    pub(crate) direction: LinearDirection,
    pub(crate) thread_tokens: u32,
    pub(crate) source: Access,
    pub(crate) weight: Access,
    pub(crate) target: Access,
    pub(crate) bias: bool,
    pub(crate) write: WriteMode,
}

impl LinearShader {
    pub(super) fn parts(&self) -> Parts {
        let Self { direction, thread_tokens, source, weight, target, bias, write } = *self;
        let (weight_width, direction) = match direction {
            LinearDirection::Forward => ("dims.source_width", wgsl!("product/linear_forward.wgsl")),
            LinearDirection::Backward => ("dims.target_width", wgsl!("product/linear_backward.wgsl")),
        };
        let parts = Parts::new("linear")
            .varying(Varying::Batch)
            .constant("THREAD_TOKENS", thread_tokens)
            .constant("SIDE", SIDE)
            .constant("THREAD_QUADS", THREAD_QUADS)
            .constant("DEPTH", DEPTH)
            .write_mode(write)
            .matrix("source", ["dims.source_width", "dims.source_stride"], source, BindingKind::Read)
            .matrix("weight", [weight_width; 2], weight, BindingKind::Read)
            // `target` is a reserved word in WGSL.
            .matrix("targets", ["dims.target_width", "dims.target_stride"], target, BindingKind::Write)
            .file(wgsl!("kernel/linear.wgsl"))
            .file(direction);
        if bias {
            parts.buffer("bias", BindingKind::Read).file(wgsl!("epilogue/bias.wgsl"))
        } else {
            parts.file(wgsl!("epilogue/none.wgsl"))
        }
    }
}
