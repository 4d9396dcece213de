//! `backward_input`: dx, if wanted, and `[dh, dl]`.

use hydralora::{BackwardInputOptions, Config, twin};

use super::{before, interleave, read, split_state, unpack};
use crate::job::Values;

pub fn twin(config: &Config, options: &BackwardInputOptions, values: &mut Values) {
    let parameters = unpack(config, read(values, "parameters"));
    let (h, w) = split_state(config, read(values, "saved"), 1.0);
    let dx_before = options.dx.and_then(|(_, write)| before(values, "dx", write));
    let gradient = twin::backward_input(config, &parameters, &h, &w, read(values, "g"), dx_before);
    values.insert("dstate".to_owned(), interleave(config, &gradient.dh, &gradient.dl));
    if let Some((element, _)) = options.dx {
        values.insert("dx".to_owned(), twin::stored(element, gradient.dx));
    }
}
