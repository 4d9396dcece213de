//! The parts of `shaders/kernel/adamw.wgsl`, and of `gradient_norm.wgsl` and `gradient_norm_reduce.wgsl`,
//! which run before it.

use super::compose::wgsl;
use super::{BindingKind, Parts, Varying};

/// Compile-time options of adamw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct AdamWShader {
    pub(crate) clip: bool,
    /// Whether groups of parameters differ.
    pub(crate) groups: bool,
}

impl AdamWShader {
    pub(super) fn parts(self) -> Parts {
        let parts = Parts::new("adamw")
            .varying(Varying::Hyper)
            .buffer("parameters", BindingKind::Write)
            .buffer("gradients", BindingKind::Read)
            .buffer("moments", BindingKind::Write)
            .file(wgsl!("kernel/adamw.wgsl"));
        let parts = if self.clip {
            parts
                .buffer("status", BindingKind::Read)
                .file(wgsl!("optimiser/norm.wgsl"))
                .file(wgsl!("optimiser/clip_norm.wgsl"))
        } else {
            parts.file(wgsl!("optimiser/clip_none.wgsl"))
        };
        if !self.groups {
            return parts.file(wgsl!("optimiser/groups_none.wgsl"));
        }
        parts.optional("groups", "GROUPS_BINDING").file(wgsl!("optimiser/groups_given.wgsl"))
    }
}

pub(super) fn gradient_norm_parts() -> Parts {
    Parts::new("gradient_norm")
        .buffer("gradients", BindingKind::Read)
        .buffer("squares", BindingKind::Write)
        .file(wgsl!("optimiser/norm.wgsl"))
        .file(wgsl!("optimiser/norm_threads.wgsl"))
        .file(wgsl!("kernel/gradient_norm.wgsl"))
}

pub(super) fn gradient_norm_reduce_parts() -> Parts {
    Parts::new("gradient_norm_reduce")
        .buffer("squares", BindingKind::Read)
        .buffer("status", BindingKind::Write)
        .file(wgsl!("optimiser/norm.wgsl"))
        .file(wgsl!("optimiser/norm_threads.wgsl"))
        .file(wgsl!("kernel/gradient_norm_reduce.wgsl"))
}
