//! `backward_params`: the gradients of every parameter, packed.

use hydralora::device::Gpu;
use hydralora::op::{BackwardParamsOptions, BackwardParamsPlan};
use hydralora::twin::{self, Activations, Parameters};
use hydralora::{
    BackwardParamsDescriptor, Choice, Config, DeviceProfile, Error, Kernels, Operation, WriteMode,
};

use super::{Elements, Lookup, NamedDispatch, Op, Planned, Prepared, before, pack, read, split_state};
use crate::job::Values;

pub struct BackwardParams {
    pub config: Config,
    pub tokens: u32,
    pub write: WriteMode,
    pub elements: Elements,
}

impl BackwardParams {
    fn options(&self) -> BackwardParamsOptions {
        let element = self.elements.sources;
        BackwardParamsOptions { write: self.write, x: element, g: element }
    }
}

impl Op for BackwardParams {
    fn prepare(&self, _: &Gpu, kernels: &Kernels, tensor: &Lookup<'_>) -> Result<Prepared, Error> {
        let Self { config, tokens, write, .. } = *self;
        let backward = hydralora::BackwardParams::prepare(
            kernels,
            &BackwardParamsDescriptor {
                config,
                tokens,
                x: tensor("x"),
                g: tensor("g"),
                saved: tensor("saved"),
                dstate: tensor("dstate"),
                gradients: tensor("gradients"),
                write,
                scratch: None,
            },
        )?;
        Ok(Box::new(move |pass| backward.encode(pass)))
    }

    fn plan(&self, device: &DeviceProfile) -> Result<Planned, Error> {
        let plan = BackwardParamsPlan::new(&self.config, self.tokens, &self.options(), device)?;
        let split = plan.scratch_bytes > 0;
        let scratch = split.then_some(("copies", (plan.scratch_bytes / 4) as usize));
        let last = plan.dispatches.len() - 1;
        let dispatches = plan.dispatches.into_iter().enumerate().map(|(index, dispatch)| {
            // Split, all but the last dispatch write their gradients to scratch memory.
            let to_scratch = split && index < last;
            NamedDispatch::new(dispatch, |name| {
                (to_scratch && name == "gradients").then(|| "copies".to_owned())
            })
        });
        Ok(Planned {
            dispatches: dispatches.collect(),
            scratch: scratch.into_iter().collect(),
            choice: Some(Choice::Outer(plan.choice)),
        })
    }

    fn tuned(&self) -> Option<(Config, u32, Operation)> {
        Some((self.config, self.tokens, Operation::BackwardParams(self.options())))
    }

    fn twin(&self, values: &mut Values) {
        let layout = self.config.layout().expect("a valid configuration");
        let (h, w) = split_state(&self.config, read(values, "saved"), 1.0);
        let (dh, dl) = split_state(&self.config, read(values, "dstate"), 0.0);
        let (x, g) = (read(values, "x"), read(values, "g"));
        let activations = Activations { x, g, h: &h, w: &w, dh: &dh, dl: &dl };
        let gradients = twin::backward_params(&self.config, &activations);
        let matrices = Parameters { a: gradients.a, router: gradients.router, b: gradients.b };
        let mut packed = pack(&self.config, &layout, &matrices);
        if let Some(before) = before(values, "gradients", self.write) {
            packed.iter_mut().zip(before).for_each(|(gradient, &before)| *gradient = before + *gradient);
        }
        values.insert("gradients".to_owned(), packed);
    }
}
