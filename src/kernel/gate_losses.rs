//! The parts of `shaders/kernel/gate_sums.wgsl` and `gate_losses.wgsl`.

use super::compose::wgsl;
use super::{BindingKind, Parts, Varying};
use crate::layer::Gate;

/// Compile-time options of `gate_sums`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GateSumsShader {
    pub(crate) a_rows: u32,
    pub(crate) experts: u32,
    pub(crate) gate: Gate,
    pub(crate) mask: bool,
}

impl GateSumsShader {
    pub(super) fn parts(self) -> Parts {
        let Self { a_rows, experts, gate, mask } = self;
        Parts::new("gate_sums")
            .varying(Varying::Batch)
            .constant("A_ROWS", a_rows)
            .constant("STATE", gate.state_len(a_rows, experts))
            .constant("EXPERTS", experts)
            .flag("SIGNS", gate.chooses())
            .flag("RENORMALISE", gate.is_renormalised())
            .flag("LOGSUMEXP", gate.has_logsumexp())
            .buffer("saved", BindingKind::Read)
            .buffer("sums", BindingKind::Write)
            .mask(mask)
            .file(wgsl!("kernel/gate_sums.wgsl"))
    }
}

pub(super) fn gate_losses_parts() -> Parts {
    Parts::new("gate_losses")
        .buffer("sums", BindingKind::Read)
        .buffer("gate_gradient", BindingKind::Write)
        .buffer("report", BindingKind::Write)
        .file(wgsl!("kernel/gate_losses.wgsl"))
}
