//! `adamw`: one step of the optimiser.

use hydralora::device::Gpu;
use hydralora::op::AdamWPlan;
use hydralora::twin::{self, Approx, Moments};
use hydralora::{AdamW, AdamWDescriptor, AdamWHyper, DeviceProfile, Error, Kernels};

use super::{Lookup, NamedDispatch, Op, Planned, Prepared, read};
use crate::job::Values;

pub struct AdamWStep {
    pub elements: usize,
    pub hyper: AdamWHyper,
    pub step: u32,
    pub learning_rate: f32,
}

impl AdamWStep {
    /// The tensor of this step's gradients.
    pub fn gradients(&self) -> String {
        format!("gradients of step {}", self.step)
    }

    /// The tensor of what it leaves when it clips.
    pub fn status(&self) -> String {
        format!("status of step {}", self.step)
    }
}

impl Op for AdamWStep {
    fn prepare(&self, gpu: &Gpu, kernels: &Kernels, tensor: &Lookup<'_>) -> Result<Prepared, Error> {
        let adamw = AdamW::prepare(
            kernels,
            &AdamWDescriptor {
                elements: self.elements,
                parameters: tensor("parameters"),
                gradients: tensor(&self.gradients()),
                moments: tensor("moments"),
                status: self.hyper.max_norm.map(|_| tensor(&self.status())),
                hyper: self.hyper,
            },
        )?;
        adamw.set_step(&gpu.queue, self.step, self.learning_rate)?;
        Ok(Box::new(move |pass| adamw.encode(pass)))
    }

    fn plan(&self, device: &DeviceProfile) -> Result<Planned, Error> {
        let mut plan = AdamWPlan::new(self.elements, self.hyper, device)?;
        let uniform = plan.uniform(self.step, self.learning_rate)?;
        plan.dispatches.iter_mut().for_each(|dispatch| dispatch.uniform = uniform.to_vec());
        let scratch = (plan.scratch_bytes > 0).then_some(("squares", (plan.scratch_bytes / 4) as usize));
        let dispatches = plan.dispatches.into_iter().map(|dispatch| {
            NamedDispatch::new(dispatch, |name| match name {
                "gradients" => Some(self.gradients()),
                "status" => Some(self.status()),
                _ => None,
            })
        });
        Ok(Planned { dispatches: dispatches.collect(), scratch: scratch.into_iter().collect(), choice: None })
    }

    fn twin(&self, values: &mut Values) {
        let gradients = read(values, &self.gradients()).to_vec();
        let mut parameters = read(values, "parameters").to_vec();
        let (first, second) = read(values, "moments").split_at(self.elements);
        let mut moments = Moments { first: first.to_vec(), second: second.to_vec() };
        let norm = twin::adamw(
            &self.hyper,
            self.step,
            self.learning_rate,
            &mut parameters,
            &gradients,
            &mut moments,
        );
        if let Some(norm) = norm {
            let status = values.get_mut(&self.status()).expect("a step that clips has a status");
            let skipped = (status[1].value as f32).to_bits() + u32::from(!norm.value.is_finite());
            *status = vec![norm, Approx::exact(f64::from(f32::from_bits(skipped)))];
        }
        values.insert("parameters".to_owned(), parameters);
        values.insert("moments".to_owned(), [moments.first, moments.second].concat());
    }
}
