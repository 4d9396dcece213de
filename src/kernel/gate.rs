//! The files of the gate, which computes the experts' weights.

use super::compose::{Parts, wgsl};
use crate::layer::{Gate, Router};

impl Parts {
    /// Adds `gate` and `weight` for forward.
    pub(super) fn gate(self, gate: Gate) -> Self {
        match gate {
            Gate::One => self.file(wgsl!("gate/one.wgsl")),
            Gate::Router(router) => self
                .file(match router {
                    Router::Input => wgsl!("gate/input.wgsl"),
                    Router::Latent => wgsl!("gate/latent.wgsl"),
                })
                .file(wgsl!("gate/softmax.wgsl"))
                .file(wgsl!("gate/weights.wgsl")),
        }
    }

    /// Adds `gate_backward` and `weight` for `backward_input`.
    pub(super) fn gate_backward(self, gate: Gate) -> Self {
        match gate {
            Gate::One => self.file(wgsl!("gate/one.wgsl")),
            Gate::Router(router) => self
                .file(match router {
                    Router::Input => wgsl!("gate/input_backward.wgsl"),
                    Router::Latent => wgsl!("gate/latent_backward.wgsl"),
                })
                .file(wgsl!("gate/softmax_backward.wgsl"))
                .file(wgsl!("gate/weights.wgsl")),
        }
    }
}
