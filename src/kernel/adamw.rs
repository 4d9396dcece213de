//! The parts of `shaders/adamw.wgsl`, and of `gradient_norm.wgsl` and its reduce before it.

use super::{BindingKind, Parts, Varying};

const NORM: &str = include_str!("../../shaders/part/norm.wgsl");

/// What of AdamW is fixed when its shader is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdamWShader {
    pub(crate) clip: bool,
}

impl AdamWShader {
    pub(super) fn parts(self) -> Parts {
        let parts = Parts::new("adamw")
            .varying(Varying::Hyper)
            .buffer("parameters", BindingKind::Write)
            .buffer("gradients", BindingKind::Read)
            .buffer("moments", BindingKind::Write)
            .text(include_str!("../../shaders/adamw.wgsl"));
        if self.clip {
            parts
                .buffer("status", BindingKind::Read)
                .text(NORM)
                .text(include_str!("../../shaders/part/clip_norm.wgsl"))
        } else {
            parts.text(include_str!("../../shaders/part/clip_none.wgsl"))
        }
    }
}

pub(super) fn gradient_norm_parts() -> Parts {
    Parts::new("gradient_norm")
        .buffer("gradients", BindingKind::Read)
        .buffer("squares", BindingKind::Write)
        .text(NORM)
        .text(include_str!("../../shaders/gradient_norm.wgsl"))
}

pub(super) fn gradient_norm_reduce_parts() -> Parts {
    Parts::new("gradient_norm_reduce")
        .buffer("squares", BindingKind::Read)
        .buffer("status", BindingKind::Write)
        .text(NORM)
        .text(include_str!("../../shaders/gradient_norm_reduce.wgsl"))
}
