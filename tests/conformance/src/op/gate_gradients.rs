//! `gate_gradients`: the gradients of weights or logits that tokens share.

use hydralora::{Config, GateGradientsOptions, twin};

use super::{read, split_state};
use crate::job::Values;

pub fn twin(config: &Config, options: &GateGradientsOptions, values: &mut Values) {
    let (_, dl) = split_state(config, read(values, "dstate"), 0.0);
    values.insert("gate_gradients".to_owned(), twin::gate_gradients(config, options.rows, &dl));
}
