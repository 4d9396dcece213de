//! The texts of `shaders/adamw.wgsl` with its parts, and of `gradient_norm.wgsl`.

use super::{Builder, Source};
use crate::tensor::Role;

/// What of AdamW is fixed when its shader is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdamWShader {
    pub(crate) clip: bool,
}

impl AdamWShader {
    pub(super) fn source(self) -> Source {
        let builder = Builder::new("adamw", "hyper")
            .buffer("parameters", Role::Write)
            .buffer("gradients", Role::Read)
            .buffer("moments", Role::Write)
            .text(include_str!("../../shaders/part/hyper.wgsl"))
            .text(include_str!("../../shaders/adamw.wgsl"));
        if self.clip {
            builder.buffer("squares", Role::Read).text(include_str!("../../shaders/part/clip_norm.wgsl"))
        } else {
            builder.text(include_str!("../../shaders/part/clip_none.wgsl"))
        }
        .build()
    }
}

pub(super) fn gradient_norm_source() -> Source {
    Builder::new("gradient_norm", "hyper")
        .buffer("gradients", Role::Read)
        .buffer("squares", Role::Write)
        .text(include_str!("../../shaders/part/hyper.wgsl"))
        .text(include_str!("../../shaders/gradient_norm.wgsl"))
        .build()
}
