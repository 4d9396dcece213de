//! AdamW over packed parameters: one dispatch, and one more when gradients are clipped.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Limit};
use crate::pipeline::{Dispatch, Kernels};
use crate::plan::{DeviceProfile, DispatchPlan, WORKGROUP, fold};
use crate::shader::{AdamWShader, Shader};
use crate::tensor::{Operand, Role, Tensor};

/// AdamW's constants. [`Default`] is PyTorch's: betas 0.9 and 0.999, epsilon 1e-8, weight decay
/// 0.01, no clipping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWHyper {
    /// Decay of the first moment, in 0..1.
    pub beta1: f32,
    /// Decay of the second moment, in 0..1.
    pub beta2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
    /// Decoupled weight decay: each step first scales parameters by `1 - lr * weight_decay`.
    pub weight_decay: f32,
    /// Gradients whose global norm exceeds this are scaled down to it, by
    /// `min(1, max_norm / (norm + 1e-6))` as PyTorch's `clip_grad_norm_` does.
    pub max_norm: Option<f32>,
}

impl Default for AdamWHyper {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_norm: None }
    }
}

/// What AdamW is prepared with.
///
/// Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2,
/// in the order of operations of PyTorch's `torch.optim.AdamW`.
#[derive(Debug, Clone, Copy)]
pub struct AdamWDescriptor<'a> {
    /// Number of elements, a multiple of four: one adapter's [`Layout::len`](crate::Layout::len), or
    /// several adapters in one buffer, with zeros between them.
    pub elements: usize,
    /// The packed parameters, f32; updated.
    pub parameters: Tensor<'a>,
    /// The packed gradients, f32.
    pub gradients: Tensor<'a>,
    /// Both moments, f32, twice `elements`; zeros before the first step, then updated.
    pub moments: Tensor<'a>,
    /// The constants.
    pub hyper: AdamWHyper,
}

/// AdamW's dispatches, planned.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWPlan {
    /// The dispatches in the order they run: one, or two when gradients are clipped. Their uniform is
    /// that of step 1 with a learning rate of 0.
    pub dispatches: Vec<DispatchPlan>,
    /// Bytes of scratch memory: partial sums of squares; 0 when gradients are not clipped.
    pub scratch_bytes: u64,
    hyper: AdamWHyper,
    groups: u32,
}

/// A prepared AdamW. Recording it costs one dispatch, or two when gradients are clipped.
#[derive(Debug)]
pub struct AdamW {
    dispatches: Vec<Dispatch>,
    uniform: wgpu::Buffer,
    plan: AdamWPlan,
}

/// `struct Hyper` in part/hyper.wgsl.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Uniform {
    groups: u32,
    decay: f32,
    beta1: f32,
    beta2: f32,
    step_size: f32,
    second_scale: f32,
    epsilon: f32,
    max_norm: f32,
}

impl AdamWHyper {
    fn check(&self) -> Result<(), Error> {
        let check = |name, value: f32, valid: bool, expected| {
            if valid { Ok(()) } else { Err(Error::InvalidNumber { name, value: f64::from(value), expected }) }
        };
        check("beta1", self.beta1, (0.0..1.0).contains(&self.beta1), "at least 0 and below 1")?;
        check("beta2", self.beta2, (0.0..1.0).contains(&self.beta2), "at least 0 and below 1")?;
        check(
            "epsilon",
            self.epsilon,
            self.epsilon > 0.0 && self.epsilon.is_finite(),
            "positive and finite",
        )?;
        check("weight_decay", self.weight_decay, self.weight_decay.is_finite(), "finite")?;
        let max_norm = self.max_norm.unwrap_or(1.0);
        check("max_norm", max_norm, max_norm > 0.0 && max_norm.is_finite(), "positive and finite")
    }

    /// The uniform of step `step` (the first is 1). The powers are taken in f64, as PyTorch does.
    fn uniform(&self, groups: u32, step: u32, learning_rate: f32) -> Uniform {
        let step = i32::try_from(step).unwrap_or(i32::MAX);
        let correction = |beta: f32| 1.0 - f64::from(beta).powi(step);
        Uniform {
            groups,
            decay: (1.0 - f64::from(learning_rate) * f64::from(self.weight_decay)) as f32,
            beta1: self.beta1,
            beta2: self.beta2,
            step_size: (f64::from(learning_rate) / correction(self.beta1)) as f32,
            second_scale: correction(self.beta2).sqrt().recip() as f32,
            epsilon: self.epsilon,
            max_norm: self.max_norm.unwrap_or(f32::INFINITY),
        }
    }
}

impl AdamWPlan {
    /// Plans AdamW over `elements` elements.
    ///
    /// # Errors
    /// No elements, a number that is no multiple of four, more than the device's limits allow, or a
    /// constant outside its range.
    pub fn new(elements: usize, hyper: AdamWHyper, device: &DeviceProfile) -> Result<Self, Error> {
        hyper.check()?;
        if elements == 0 {
            return Err(Error::ZeroDimension { dimension: "elements" });
        }
        if !elements.is_multiple_of(4) {
            return Err(Error::WrongLength {
                what: "the packed layout".to_owned(),
                needed: elements.next_multiple_of(4) as u64,
                given: elements as u64,
            });
        }
        Error::check_limit("AdamW", Limit::Elements, elements as u64, 1 << 30, "split the parameters")?;
        let groups = elements as u32 / 4;
        let [x, y] = fold("adamw", groups.div_ceil(WORKGROUP), &device.limits)?;
        let clip = hyper.max_norm.is_some();
        let uniform = hyper.uniform(groups, 1, 0.0);
        let adamw = DispatchPlan::new(Shader::AdamW(AdamWShader { clip }), &uniform, [x, y, 1], device)?;
        let norm = clip
            .then(|| DispatchPlan::new(Shader::GradientNorm, &uniform, [WORKGROUP, 1, 1], device))
            .transpose()?;
        let scratch_bytes = if clip { 4 * u64::from(WORKGROUP) } else { 0 };
        Ok(Self { dispatches: norm.into_iter().chain([adamw]).collect(), scratch_bytes, hyper, groups })
    }

    /// What the dispatches' uniform holds at step `step` (the first is 1; 0 is taken as 1).
    #[must_use]
    pub fn uniform(&self, step: u32, learning_rate: f32) -> [u8; 32] {
        bytemuck::cast(self.hyper.uniform(self.groups, step.max(1), learning_rate))
    }
}

impl AdamW {
    /// Checks the tensors, compiles the shaders where needed and binds everything.
    ///
    /// # Errors
    /// Every mistake in numbers, tensors and limits; nothing is recorded then.
    pub fn prepare(kernels: &Kernels, descriptor: &AdamWDescriptor<'_>) -> Result<Self, Error> {
        let AdamWDescriptor { elements, parameters, gradients, moments, hyper } = *descriptor;
        let plan = AdamWPlan::new(elements, hyper, kernels.profile())?;
        let elements = elements as u64;
        let gradients = Operand::vector("gradients", Role::Read, gradients, elements).only_f32();
        let mut operands = vec![
            Operand::vector("parameters", Role::Write, parameters, elements).only_f32(),
            gradients.clone(),
            Operand::vector("moments", Role::Write, moments, 2 * elements).only_f32(),
        ];
        let uniform = kernels.uniform(&plan.uniform(1, 0.0))?;
        let dispatches = match &plan.dispatches[..] {
            [norm, adamw] => {
                let squares = kernels.scratch("hydralora gradient_norm squares", plan.scratch_bytes)?;
                let squares =
                    |role| Operand::vector("squares", role, Tensor::from(&squares), plan.scratch_bytes / 4);
                let norm = kernels.dispatch_with(norm, &uniform, &[gradients, squares(Role::Write)])?;
                operands.push(squares(Role::Read));
                vec![norm, kernels.dispatch_with(adamw, &uniform, &operands)?]
            }
            dispatches => dispatches
                .iter()
                .map(|adamw| kernels.dispatch_with(adamw, &uniform, &operands))
                .collect::<Result<_, _>>()?,
        };
        Ok(Self { dispatches, uniform, plan })
    }

    /// Sets the step number (the first is 1; 0 is taken as 1) and its learning rate.
    ///
    /// This is a `Queue::write_buffer`: it takes effect before whatever is submitted next, so record
    /// at most one step of this optimiser in a submission.
    pub fn set_step(&self, queue: &wgpu::Queue, step: u32, learning_rate: f32) {
        queue.write_buffer(&self.uniform, 0, &self.plan.uniform(step, learning_rate));
    }

    /// Dispatches that recording it takes: one or two.
    #[must_use]
    pub fn dispatches(&self) -> usize {
        self.dispatches.len()
    }

    /// Records one step.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        for dispatch in &self.dispatches {
            dispatch.encode(pass);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::op::tests::{assert_uniform, profile};

    #[test]
    fn uniforms_match() {
        let hyper = AdamWHyper { max_norm: Some(1.0), ..AdamWHyper::default() };
        for dispatch in AdamWPlan::new(64, hyper, &profile()).expect("it fits").dispatches {
            assert_uniform(
                &dispatch.shader,
                size_of::<Uniform>(),
                &[
                    ("groups", offset_of!(Uniform, groups)),
                    ("decay", offset_of!(Uniform, decay)),
                    ("beta1", offset_of!(Uniform, beta1)),
                    ("beta2", offset_of!(Uniform, beta2)),
                    ("step_size", offset_of!(Uniform, step_size)),
                    ("second_scale", offset_of!(Uniform, second_scale)),
                    ("epsilon", offset_of!(Uniform, epsilon)),
                    ("max_norm", offset_of!(Uniform, max_norm)),
                ],
            );
        }
    }
}
