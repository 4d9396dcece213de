//! The files of the gate, which computes the experts' weights.

use super::compose::{Parts, wgsl};
use crate::layer::{Gate, GateGradient, Logits, Weighting};

impl Parts {
    /// Adds `gate` and `weight` for forward, and the next binding if weights or logits are given.
    pub(super) fn gate(self, gate: Gate, rank: u32) -> Self {
        let (logits, weighting) = match gate {
            Gate::One => return self.file(wgsl!("gate/one.wgsl")),
            Gate::Given => return self.given().file(wgsl!("gate/weights_given.wgsl")).weights(gate),
            Gate::Router(logits, weighting, _) => (logits, weighting),
        };
        let softmax =
            |parts: Self| parts.flag("LOGSUMEXP", gate.has_logsumexp()).file(wgsl!("gate/softmax.wgsl"));
        let parts = match logits {
            Logits::Input { bias: false } => self.file(wgsl!("gate/input.wgsl")),
            Logits::Input { bias: true } | Logits::Latent { .. } => {
                self.gate_block(gate, rank).file(wgsl!("gate/block.wgsl"))
            }
            Logits::Given => self.given(),
        };
        let parts = parts.file(wgsl!("gate/router.wgsl"));
        let parts = match weighting {
            Weighting::Softmax => softmax(parts).file(wgsl!("gate/choose_all.wgsl")),
            Weighting::TopK { k, renormalise } => softmax(parts)
                .constant("TOP", k)
                .flag("RENORMALISE", renormalise)
                .file(wgsl!("gate/choose_top.wgsl")),
            Weighting::Sigmoid | Weighting::NormalisedSigmoid => {
                parts.flag("NORMALISE", weighting.has_total()).file(wgsl!("gate/sigmoid.wgsl"))
            }
        };
        parts.weights(gate)
    }

    /// Adds `gate_backward` and `weight` for `backward_input`, and the next binding if the caller adds a gradient.
    pub(super) fn gate_backward(self, gate: Gate, rank: u32, added: Option<GateGradient>) -> Self {
        let (logits, weighting) = match gate {
            Gate::One => return self.file(wgsl!("gate/one.wgsl")),
            Gate::Given => {
                return self.added(gate, added).file(wgsl!("gate/weights_given_backward.wgsl")).weights(gate);
            }
            Gate::Router(logits, weighting, _) => (logits, weighting),
        };
        let parts = match logits {
            Logits::Latent { .. } => self.gate_block(gate, rank).file(wgsl!("gate/latent_backward.wgsl")),
            Logits::Input { .. } | Logits::Given => self.file(wgsl!("gate/no_logits_backward.wgsl")),
        };
        let parts = match weighting {
            Weighting::Softmax | Weighting::TopK { .. } => {
                let losses = added == Some(GateGradient::Losses);
                parts
                    .flag("LOSSES", losses)
                    .flag("Z_LOSS", losses && gate.has_logsumexp())
                    .flag("RENORMALISE", weighting.is_renormalised())
                    .file(wgsl!("gate/softmax_backward.wgsl"))
            }
            Weighting::Sigmoid | Weighting::NormalisedSigmoid => {
                parts.flag("NORMALISE", weighting.has_total()).file(wgsl!("gate/sigmoid_backward.wgsl"))
            }
        };
        parts.added(gate, added).file(wgsl!("gate/router_backward.wgsl")).weights(gate)
    }

    /// Adds the next binding, and `logits`.
    fn given(self) -> Self {
        self.rows("gates").file(wgsl!("gate/given.wgsl"))
    }

    fn added(self, gate: Gate, added: Option<GateGradient>) -> Self {
        let Some(added) = added else { return self.file(wgsl!("gate/no_gradient.wgsl")) };
        self.rows("gate_gradient")
            .flag("OF_LOGITS", matches!(added, GateGradient::Logits(_)))
            .flag("OF_LOSSES", added == GateGradient::Losses)
            .flag("OF_SOFTMAX", added == GateGradient::Losses && gate.has_softmax())
            .file(wgsl!("gate/add_gradient.wgsl"))
    }

    /// Adds the next binding: rows of numbers for each expert.
    fn rows(self, tensor: &'static str) -> Self {
        self.optional(tensor, "GIVEN_BINDING").file_of(wgsl!("gate/rows.wgsl"), tensor)
    }

    fn gate_block(self, gate: Gate, rank: u32) -> Self {
        self.constant("LATENT_RANK", gate.latent_columns(rank))
            .constant("GATE_COLUMNS", gate.block_columns(rank))
    }

    fn weights(self, gate: Gate) -> Self {
        self.flag("SIGNS", gate.chooses()).file(wgsl!("gate/weights.wgsl"))
    }
}
