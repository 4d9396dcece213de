//! The parts of `shaders/kernel/gate_gradients.wgsl`.

use super::compose::wgsl;
use super::{BindingKind, Parts, Varying};
use crate::layer::Gate;

/// Compile-time options of `gate_gradients`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GateGradientsShader {
    pub(crate) a_rows: u32,
    pub(crate) experts: u32,
    pub(crate) gate: Gate,
}

impl GateGradientsShader {
    pub(super) fn parts(self) -> Parts {
        let Self { a_rows, experts, gate } = self;
        Parts::new("gate_gradients")
            .varying(Varying::Batch)
            .constant("A_ROWS", a_rows)
            .constant("EXPERTS", experts)
            .constant("STATE", gate.state_len(a_rows, experts))
            .buffer("dstate", BindingKind::Read)
            .buffer("gate_gradients", BindingKind::Write)
            .file(wgsl!("kernel/gate_gradients.wgsl"))
    }
}
