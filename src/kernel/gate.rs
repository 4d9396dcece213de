//! The files of the gate, which computes the experts' weights.

use super::BindingKind;
use super::compose::{Parts, wgsl};
use crate::layer::{Gate, Router};

impl Parts {
    /// Adds `gate` and `weight` for forward, and the next binding if weights are given.
    pub(super) fn gate(self, gate: Gate) -> Self {
        match gate {
            Gate::One => self.file(wgsl!("gate/one.wgsl")),
            Gate::Router(Router::Input) => self.file(wgsl!("gate/input.wgsl")).softmax(),
            Gate::Router(Router::Latent) => self.file(wgsl!("gate/latent.wgsl")).softmax(),
            Gate::Router(Router::External) => {
                let binding = self.bindings.len() as u32;
                self.constant("GATES_BINDING", binding)
                    .buffer("gates", BindingKind::Read)
                    .file(wgsl!("gate/external.wgsl"))
                    .file(wgsl!("gate/weights.wgsl"))
            }
        }
    }

    /// Adds `gate_backward` and `weight` for `backward_input`.
    pub(super) fn gate_backward(self, gate: Gate) -> Self {
        match gate {
            Gate::One => self.file(wgsl!("gate/one.wgsl")),
            Gate::Router(Router::Input) => self.file(wgsl!("gate/input_backward.wgsl")).softmax_backward(),
            Gate::Router(Router::Latent) => self.file(wgsl!("gate/latent_backward.wgsl")).softmax_backward(),
            Gate::Router(Router::External) => {
                self.file(wgsl!("gate/external_backward.wgsl")).file(wgsl!("gate/weights.wgsl"))
            }
        }
    }

    fn softmax(self) -> Self {
        self.file(wgsl!("gate/softmax.wgsl")).file(wgsl!("gate/weights.wgsl"))
    }

    fn softmax_backward(self) -> Self {
        self.file(wgsl!("gate/softmax_backward.wgsl")).file(wgsl!("gate/weights.wgsl"))
    }
}
