//! Twin of `shaders/kernel/gate_gradients.wgsl`.

use super::{Approx, dot, gate_len};
use crate::layer::{Config, GateRows};

/// The gradient of given weights or logits that tokens share, from that of each token (tokens x experts, and what else
/// there is): rows x experts.
///
/// # Panics
/// If the gradient does not have the configuration's shape.
#[must_use]
pub fn gate_gradients(config: &Config, rows: GateRows, dl: &[Approx]) -> Vec<Approx> {
    let (experts, width) = (config.experts as usize, gate_len(config));
    let tokens = dl.len() / width;
    let shared = rows.tokens().min(tokens as u32) as usize;
    let row = |row: &[Approx]| -> Vec<Approx> {
        let sum = |i| dot(row.chunks_exact(width).map(|token| (token[i], Approx::exact(1.0))));
        (0..experts).map(sum).collect()
    };
    dl.chunks(shared * width).flat_map(row).collect()
}
