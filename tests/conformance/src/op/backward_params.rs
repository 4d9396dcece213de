//! `backward_params`: the packed gradients of all parameters.

use hydralora::twin::{self, Activations, Extras};
use hydralora::{BackwardParamsOptions, Config};

use super::{RANDOM, before, mask, pack, read, split_state};
use crate::job::Values;

pub fn twin(config: &Config, options: &BackwardParamsOptions, values: &mut Values) {
    let (h, w) = split_state(config, read(values, "saved"), 1.0);
    let (dh, dl) = split_state(config, read(values, "dstate"), 0.0);
    let (x, g) = (read(values, "x"), read(values, "g"));
    let activations = Activations { x, g, h: &h, w: &w, dh: &dh, dl: &dl };
    let mask = mask(values);
    let extras = Extras { mask: mask.as_deref(), random: Some(RANDOM), ..Extras::default() };
    let mut packed = pack(config, &twin::backward_params(config, &activations, &extras));
    if let Some(before) = before(values, "gradients", options.write) {
        packed.iter_mut().zip(before).for_each(|(gradient, &before)| *gradient = before + *gradient);
    }
    values.insert("gradients".to_owned(), packed);
}
