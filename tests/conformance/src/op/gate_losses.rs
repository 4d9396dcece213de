//! `gate_losses`: the losses of a router, and their gradient.

use hydralora::twin::{self, Extras};
use hydralora::{Config, GateLossesOptions};

use super::{mask, read, split_state};
use crate::job::Values;

pub fn twin(config: &Config, options: &GateLossesOptions, values: &mut Values) {
    let (_, w) = split_state(config, read(values, "saved"), 1.0);
    let mask = mask(values);
    let extras = Extras { mask: mask.as_deref(), ..Extras::default() };
    let twin::GateLosses { gradient, report } = twin::gate_losses(config, options, &w, &extras);
    values.insert("gate_gradient".to_owned(), gradient);
    values.insert("report".to_owned(), report);
}
