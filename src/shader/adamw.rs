//! The parts of `shaders/adamw.wgsl`, and of `gradient_norm.wgsl` and its reduce before it.

use super::Parts;
use crate::tensor::Role;

const HYPER: &str = include_str!("../../shaders/part/hyper.wgsl");
const NORM: &str = include_str!("../../shaders/part/norm.wgsl");

/// What of AdamW is fixed when its shader is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdamWShader {
    pub(crate) clip: bool,
}

impl AdamWShader {
    pub(super) fn parts(self) -> Parts {
        let parts = Parts::new("adamw", "hyper")
            .buffer("parameters", Role::Write)
            .buffer("gradients", Role::Read)
            .buffer("moments", Role::Write)
            .text(HYPER)
            .text(include_str!("../../shaders/adamw.wgsl"));
        if self.clip {
            parts
                .buffer("status", Role::Read)
                .text(NORM)
                .text(include_str!("../../shaders/part/clip_norm.wgsl"))
        } else {
            parts.text(include_str!("../../shaders/part/clip_none.wgsl"))
        }
    }
}

pub(super) fn gradient_norm_parts() -> Parts {
    Parts::new("gradient_norm", "hyper")
        .buffer("gradients", Role::Read)
        .buffer("squares", Role::Write)
        .text(HYPER)
        .text(NORM)
        .text(include_str!("../../shaders/gradient_norm.wgsl"))
}

pub(super) fn gradient_norm_reduce_parts() -> Parts {
    Parts::new("gradient_norm_reduce", "hyper")
        .buffer("squares", Role::Read)
        .buffer("status", Role::Write)
        .text(HYPER)
        .text(NORM)
        .text(include_str!("../../shaders/gradient_norm_reduce.wgsl"))
}
