//! The parts of `shaders/adamw.wgsl` and of `gradient_norm.wgsl`.

use super::Parts;
use crate::tensor::Role;

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
            .text(include_str!("../../shaders/part/hyper.wgsl"))
            .text(include_str!("../../shaders/adamw.wgsl"));
        if self.clip {
            parts.buffer("squares", Role::Read).text(include_str!("../../shaders/part/clip_norm.wgsl"))
        } else {
            parts.text(include_str!("../../shaders/part/clip_none.wgsl"))
        }
    }
}

pub(super) fn gradient_norm_parts() -> Parts {
    Parts::new("gradient_norm", "hyper")
        .buffer("gradients", Role::Read)
        .buffer("squares", Role::Write)
        .text(include_str!("../../shaders/part/hyper.wgsl"))
        .text(include_str!("../../shaders/gradient_norm.wgsl"))
}
