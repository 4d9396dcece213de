//! `forward`: y, and `[h, w]` when training.

use hydralora::device::Gpu;
use hydralora::op::{ForwardOptions, ForwardPlan};
use hydralora::twin::{self, Output};
use hydralora::{Config, DeviceProfile, Error, ForwardDescriptor, Kernels, Operation, WriteMode};

use super::{Elements, Lookup, Op, Planned, Prepared, before, interleave, read, unpack};
use crate::job::Values;

pub struct Forward {
    pub config: Config,
    pub tokens: u32,
    pub write: WriteMode,
    pub save: bool,
    pub elements: Elements,
}

impl Forward {
    fn options(&self) -> ForwardOptions {
        let Self { write, save, elements: Elements { sources: x, parameters, targets: y }, .. } = *self;
        ForwardOptions { write, save, x, parameters, y }
    }
}

impl Op for Forward {
    fn prepare(&self, _: &Gpu, kernels: &Kernels, tensor: &Lookup<'_>) -> Result<Prepared, Error> {
        let Self { config, tokens, write, save, .. } = *self;
        let forward = hydralora::Forward::prepare(
            kernels,
            &ForwardDescriptor {
                config,
                tokens,
                x: tensor("x"),
                parameters: tensor("parameters"),
                y: tensor("y"),
                write,
                saved: save.then(|| tensor("saved")),
            },
        )?;
        Ok(Box::new(move |pass| forward.encode(pass)))
    }

    fn plan(&self, device: &DeviceProfile) -> Result<Planned, Error> {
        let plan = ForwardPlan::new(&self.config, self.tokens, &self.options(), device)?;
        Ok(Planned::fused(plan.dispatches, plan.scratch_bytes, plan.choice, "x"))
    }

    fn tuned(&self) -> Option<(Config, u32, Operation)> {
        Some((self.config, self.tokens, Operation::Forward(self.options())))
    }

    fn twin(&self, values: &mut Values) {
        let layout = self.config.layout().expect("a valid configuration");
        let parameters = unpack(&self.config, &layout, read(values, "parameters"));
        let y_before = before(values, "y", self.write);
        let Output { y, h, w } = twin::forward(&self.config, &parameters, read(values, "x"), y_before);
        values.insert("y".to_owned(), twin::stored(self.elements.targets, y));
        if self.save {
            values.insert("saved".to_owned(), interleave(&self.config, &h, &w));
        }
    }
}
