//! The parts of `shaders/linear.wgsl`.

use super::{Access, Parts, WriteMode};
use crate::tensor::Role;

/// A workgroup is 8 x 8 threads (`SIDE` in linear.wgsl).
pub(crate) const SIDE: u32 = 8;
/// Tokens that a thread computes at most.
pub(crate) const MOST_THREAD_TOKENS: u32 = 8;
/// vec4s of target columns that a thread computes.
pub(crate) const THREAD_QUADS: u32 = 2;
/// vec4s of the inner dimension in a tile.
pub(crate) const DEPTH: u32 = 4;

/// Which product is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LinearDirection {
    /// `y (+)= W0 x + bias`: the source is x, T x `d_in`, the target y, T x `d_out`.
    Forward,
    /// `dx (+)= W0^T g`: the source is g, T x `d_out`, the target dx, T x `d_in`.
    Backward,
}

/// What of a linear layer is fixed when its shader is compiled.
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
            LinearDirection::Forward => {
                ("dims.source_width", include_str!("../../shaders/part/linear_forward.wgsl"))
            }
            LinearDirection::Backward => {
                ("dims.target_width", include_str!("../../shaders/part/linear_backward.wgsl"))
            }
        };
        let parts = Parts::new("linear", "dims")
            .constant("THREAD_TOKENS", thread_tokens)
            .constant("THREAD_QUADS", THREAD_QUADS)
            .constant("DEPTH", DEPTH)
            .write_mode(write)
            .matrix("source", "dims.source_width", source, Role::Read)
            .matrix("weight", weight_width, weight, Role::Read)
            // `target` is a reserved word in WGSL.
            .matrix("targets", "dims.target_width", target, Role::Write)
            .text(include_str!("../../shaders/linear.wgsl"))
            .text(direction);
        if bias {
            parts.buffer("bias", Role::Read).text(include_str!("../../shaders/part/linear_bias.wgsl"))
        } else {
            parts.text(include_str!("../../shaders/part/linear_no_bias.wgsl"))
        }
    }
}
