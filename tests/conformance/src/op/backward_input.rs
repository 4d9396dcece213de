//! `backward_input`: dx, if wanted, and `[dh, dl]`.

use hydralora::twin::{self, Extras};
use hydralora::{BackwardInputOptions, Config, GateGradient};

use super::{RANDOM, before, by_token, interleave, mask, read, split_state, unpack};
use crate::job::Values;

pub fn twin(config: &Config, options: &BackwardInputOptions, values: &mut Values) {
    let parameters = unpack(config, read(values, "parameters"));
    let (h, w) = split_state(config, read(values, "saved"), 1.0);
    let dx_before = options.dx.and_then(|(_, write)| before(values, "dx", write));
    let g = read(values, "g");
    let tokens = g.len() / config.d_out as usize;
    let added = options.gate_gradient.map(|added| {
        let gradient = by_token(config, added.rows(), tokens, read(values, "gate_gradient"));
        (added, gradient)
    });
    let is_losses = options.gate_gradient == Some(GateGradient::Losses) && config.logsumexp;
    let z_factor = is_losses.then(|| read(values, "gate_gradient")[config.experts as usize]);
    let gate_gradient = added.as_ref().map(|(added, gradient)| (*added, gradient.as_slice()));
    let mask = mask(values);
    let (mask, random) = (mask.as_deref(), Some(RANDOM));
    let extras = Extras { gate_gradient, z_factor, mask, random, ..Extras::default() };
    let gradient = twin::backward_input(config, &parameters, &h, &w, g, &extras, dx_before);
    values.insert("dstate".to_owned(), interleave(config, &gradient.dh, &gradient.dl));
    if let Some((element, _)) = options.dx {
        values.insert("dx".to_owned(), twin::stored(element, gradient.dx));
    }
}
