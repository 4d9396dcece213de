//! `linear`: the frozen layer, y from x or dx from g.

use hydralora::{Config, LinearDirection, LinearOptions, twin};

use super::{before, read};
use crate::job::Values;

pub fn twin(config: &Config, options: &LinearOptions, values: &mut Values) {
    let [source, target] = options.direction.names();
    let dimensions = [config.d_in as usize, config.d_out as usize];
    let bias = options.bias.then(|| read(values, "bias"));
    let target_before = before(values, target, options.write);
    let (source, weight) = (read(values, source), read(values, "weight"));
    let result = match options.direction {
        LinearDirection::Forward => twin::linear(dimensions, weight, bias, source, target_before),
        LinearDirection::Backward => twin::linear_backward(dimensions, weight, source, target_before),
    };
    values.insert(target.to_owned(), twin::stored(options.target, result));
}
