//! `backward_input`: dx, where wanted, and `[dh, dl]`.

use hydralora::device::Gpu;
use hydralora::op::{BackwardInputOptions, BackwardInputPlan};
use hydralora::twin::{self, Approx};
use hydralora::{BackwardInputDescriptor, Config, DeviceProfile, Error, Kernels, Operation, WriteMode};

use super::{Elements, Lookup, Op, Planned, Prepared, interleave, read, split_state, unpack};
use crate::job::Values;

pub struct BackwardInput {
    pub config: Config,
    pub tokens: u32,
    pub write: WriteMode,
    pub dx: bool,
    pub elements: Elements,
}

impl BackwardInput {
    fn options(&self) -> BackwardInputOptions {
        let Elements { sources: g, targets, .. } = self.elements;
        BackwardInputOptions { g, dx: self.dx.then_some((targets, self.write)) }
    }
}

impl Op for BackwardInput {
    fn prepare(&self, _: &Gpu, kernels: &Kernels, tensor: &Lookup<'_>) -> Result<Prepared, Error> {
        let Self { config, tokens, write, dx, .. } = *self;
        let backward = hydralora::BackwardInput::prepare(
            kernels,
            &BackwardInputDescriptor {
                config,
                tokens,
                g: tensor("g"),
                parameters: tensor("parameters"),
                saved: tensor("saved"),
                dx: dx.then(|| tensor("dx")),
                write,
                dstate: tensor("dstate"),
            },
        )?;
        Ok(Box::new(move |pass| backward.encode(pass)))
    }

    fn plan(&self, device: &DeviceProfile) -> Result<Planned, Error> {
        let plan = BackwardInputPlan::new(&self.config, self.tokens, &self.options(), device)?;
        Ok(Planned::fused(plan.dispatches, plan.scratch_bytes, plan.choice, "g"))
    }

    fn tuned(&self) -> Option<(Config, u32, Operation)> {
        Some((self.config, self.tokens, Operation::BackwardInput(self.options())))
    }

    fn twin(&self, values: &mut Values) {
        let layout = self.config.layout().expect("a valid configuration");
        let parameters = unpack(&self.config, &layout, read(values, "parameters"));
        let (h, w) = split_state(&self.config, read(values, "saved"), 1.0);
        let dx_before: Option<&[Approx]> =
            (self.dx && self.write == WriteMode::Accumulate).then(|| read(values, "dx"));
        let gradient = twin::backward_input(&self.config, &parameters, &h, &w, read(values, "g"), dx_before);
        values.insert("dstate".to_owned(), interleave(&self.config, &gradient.dh, &gradient.dl));
        if self.dx {
            values.insert("dx".to_owned(), twin::stored(self.elements.targets, gradient.dx));
        }
    }
}
