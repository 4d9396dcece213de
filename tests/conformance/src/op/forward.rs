//! `forward`: y, and `[h, w]` when training.

use hydralora::twin::{self, Output};
use hydralora::{Config, ForwardOptions};

use super::{before, interleave, read, unpack};
use crate::job::Values;

pub fn twin(config: &Config, options: &ForwardOptions, values: &mut Values) {
    let parameters = unpack(config, read(values, "parameters"));
    let gates = values.get("gates").map(Vec::as_slice);
    let y_before = before(values, "y", options.write);
    let Output { y, h, w } = twin::forward(config, &parameters, read(values, "x"), gates, y_before);
    values.insert("y".to_owned(), twin::stored(options.y, y));
    if options.save {
        values.insert("saved".to_owned(), interleave(config, &h, &w));
    }
}
