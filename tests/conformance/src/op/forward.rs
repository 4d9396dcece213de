//! `forward`: y, and `[h, w]` when training.

use hydralora::twin::{self, Extras, Output};
use hydralora::{Config, ForwardOptions};

use super::{RANDOM, before, by_token, interleave, mask, read, unpack};
use crate::job::Values;

pub fn twin(config: &Config, options: &ForwardOptions, values: &mut Values) {
    let parameters = unpack(config, read(values, "parameters"));
    let x = read(values, "x");
    let tokens = x.len() / config.d_in as usize;
    let gates = values.get("gates").map(|gates| by_token(config, options.gates, tokens, gates));
    let (gates, mask) = (gates.as_deref(), mask(values));
    let (mask, random) = (mask.as_deref(), options.save.then_some(RANDOM));
    let extras = Extras { gates, mask, random, ..Extras::default() };
    let y_before = before(values, "y", options.write);
    let Output { y, h, w, .. } = twin::forward(config, &parameters, x, &extras, y_before);
    values.insert("y".to_owned(), twin::stored(options.y, y));
    if options.save {
        values.insert("saved".to_owned(), interleave(config, &h, &w));
    }
}
