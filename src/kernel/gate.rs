//! The files of the gate, which computes the experts' weights.

use super::BindingKind;
use super::compose::{Parts, wgsl};
use crate::layer::{Gate, Router, Weighting};

impl Parts {
    /// Adds `gate` and `weight` for forward, and the next binding if weights are given.
    pub(super) fn gate(self, gate: Gate) -> Self {
        let (logits, weighting) = match gate {
            Gate::One => return self.file(wgsl!("gate/one.wgsl")),
            Gate::Router(Router::External, weighting) => {
                let binding = self.bindings.len() as u32;
                return self
                    .constant("GATES_BINDING", binding)
                    .buffer("gates", BindingKind::Read)
                    .file(wgsl!("gate/external.wgsl"))
                    .weights(weighting);
            }
            Gate::Router(Router::Input, weighting) => (wgsl!("gate/input.wgsl"), weighting),
            Gate::Router(Router::Latent, weighting) => (wgsl!("gate/latent.wgsl"), weighting),
        };
        let parts = self.file(logits).file(wgsl!("gate/softmax.wgsl")).weights(weighting);
        match weighting {
            Weighting::Softmax => parts.file(wgsl!("gate/choose_all.wgsl")),
            Weighting::TopK { k, renormalise } => {
                parts.constant("TOP", k).flag("RENORMALISE", renormalise).file(wgsl!("gate/choose_top.wgsl"))
            }
        }
    }

    /// Adds `gate_backward` and `weight` for `backward_input`.
    pub(super) fn gate_backward(self, gate: Gate) -> Self {
        let (logits, weighting) = match gate {
            Gate::One => return self.file(wgsl!("gate/one.wgsl")),
            Gate::Router(Router::External, weighting) => {
                return self.file(wgsl!("gate/external_backward.wgsl")).weights(weighting);
            }
            Gate::Router(Router::Input, weighting) => (wgsl!("gate/input_backward.wgsl"), weighting),
            Gate::Router(Router::Latent, weighting) => (wgsl!("gate/latent_backward.wgsl"), weighting),
        };
        self.file(logits).file(wgsl!("gate/softmax_backward.wgsl")).weights(weighting)
    }

    fn weights(self, weighting: Weighting) -> Self {
        self.flag("SIGNS", weighting.has_signs()).file(wgsl!("gate/weights.wgsl"))
    }
}
