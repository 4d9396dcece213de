//! `linear`: the frozen layer, y from x or dx from g.

use hydralora::device::Gpu;
use hydralora::op::{LinearOptions, LinearPlan};
use hydralora::{DeviceProfile, Error, Kernels, LinearDescriptor, LinearDirection, WriteMode, twin};

use super::{Elements, Lookup, Op, Planned, Prepared, before, read};
use crate::job::Values;

pub struct Linear {
    pub direction: LinearDirection,
    pub d_in: u32,
    pub d_out: u32,
    pub tokens: u32,
    pub bias: bool,
    pub write: WriteMode,
    pub elements: Elements,
}

impl Linear {
    fn ends(&self) -> (&'static str, &'static str) {
        match self.direction {
            LinearDirection::Forward => ("x", "y"),
            LinearDirection::Backward => ("g", "dx"),
        }
    }
}

impl Op for Linear {
    fn prepare(&self, _: &Gpu, kernels: &Kernels, tensor: &Lookup<'_>) -> Result<Prepared, Error> {
        let Self { direction, d_in, d_out, tokens, bias, write, .. } = *self;
        let (source, target) = self.ends();
        let linear = hydralora::Linear::prepare(
            kernels,
            &LinearDescriptor {
                direction,
                d_in,
                d_out,
                tokens,
                source: tensor(source),
                weight: tensor("weight"),
                bias: bias.then(|| tensor("bias")),
                target: tensor(target),
                write,
            },
        )?;
        Ok(Box::new(move |pass| linear.encode(pass)))
    }

    fn plan(&self, device: &DeviceProfile) -> Result<Planned, Error> {
        let shape = [self.d_in, self.d_out, self.tokens];
        let Self { bias, write, elements: Elements { sources, parameters, targets }, .. } = *self;
        let options = LinearOptions { bias, write, source: sources, weight: parameters, target: targets };
        let plan = LinearPlan::new(self.direction, shape, &options, device)?;
        let (source, target) = self.ends();
        Ok(Planned::one(plan.dispatch, |name| match name {
            "source" => Some(source.to_owned()),
            "targets" => Some(target.to_owned()),
            _ => None,
        }))
    }

    fn twin(&self, values: &mut Values) {
        let (source, target) = self.ends();
        let dimensions = [self.d_in as usize, self.d_out as usize];
        let bias = self.bias.then(|| read(values, "bias"));
        let target_before = before(values, target, self.write);
        let (source, weight) = (read(values, source), read(values, "weight"));
        let result = match self.direction {
            LinearDirection::Forward => twin::linear(dimensions, weight, bias, source, target_before),
            LinearDirection::Backward => twin::linear_backward(dimensions, weight, source, target_before),
        };
        values.insert(target.to_owned(), twin::stored(self.elements.targets, result));
    }
}
