//! AdamW over packed parameters: one dispatch, and two before it when gradients are clipped.

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Limit};
use crate::pipeline::{Dispatch, Kernels};
use crate::plan::{DeviceProfile, DispatchPlan, WORKGROUP, fold};
use crate::shader::{AdamWShader, Shader};
use crate::tensor::{Operand, Role, Tensor, check_operands};

/// AdamW's constants. [`Default`] is PyTorch's: betas 0.9 and 0.999, epsilon 1e-8, weight decay
/// 0.01, no clipping.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWHyper {
    /// Decay of the first moment, in 0..1.
    pub beta1: f32,
    /// Decay of the second moment, in 0..1.
    pub beta2: f32,
    /// Added to the denominator; at least f32's smallest normal number, because devices may take what is
    /// smaller to be zero.
    pub epsilon: f32,
    /// Decoupled weight decay, at least 0: each step first scales parameters by `1 - lr * weight_decay`.
    pub weight_decay: f32,
    /// Gradients whose global norm exceeds this are scaled down to it, by
    /// `min(1, max_norm / (norm + 1e-6))` as PyTorch's `clip_grad_norm_` does. At least f32's smallest
    /// normal number.
    ///
    /// With it, a step whose norm is NaN, infinite or too large for f32 is skipped on the device:
    /// parameters and moments stay as they are, bit for bit, and [`AdamWStatus`] counts it. A norm that
    /// fits f32 is right even where squares of gradients do not fit. `Some(f32::MAX)` skips such steps and
    /// clips no other.
    ///
    /// Without it there is no norm, and nothing is skipped: a gradient that is NaN or infinite makes its
    /// own element useless, and no other. So does, with clipping or without, one beyond 1.8e19 that is not
    /// scaled down: its square, and with it the second moment, is infinite in f32, as in PyTorch.
    pub max_norm: Option<f32>,
}

impl Default for AdamWHyper {
    fn default() -> Self {
        Self { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weight_decay: 0.01, max_norm: None }
    }
}

/// What clipping leaves in [`AdamWDescriptor::status`] after each step: two 32-bit words.
///
/// `bytemuck` makes it of the bytes that were read back.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct AdamWStatus {
    /// The norm of the last step's gradients before clipping: NaN where one of them is, infinite where one
    /// is or where f32 cannot hold it.
    pub norm: f32,
    /// Steps that were skipped because their norm was not finite, since the tensor held zeros.
    pub skipped: u32,
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
    /// Where to leave an [`AdamWStatus`], 8 bytes, zeros before the first step; only with
    /// [`AdamWHyper::max_norm`]. For those who want to read it.
    pub status: Option<Tensor<'a>>,
    /// The constants.
    pub hyper: AdamWHyper,
}

/// AdamW's dispatches, planned.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWPlan {
    /// The dispatches in the order they run: one, or three when gradients are clipped. Their uniform is
    /// that of step 1 with a learning rate of 0.
    pub dispatches: Vec<DispatchPlan>,
    /// Bytes of scratch memory: partial sums of squares; 0 when gradients are not clipped.
    pub scratch_bytes: u64,
    hyper: AdamWHyper,
    groups: u32,
}

/// A prepared AdamW. Recording it costs one dispatch, or three when gradients are clipped.
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

/// `struct Squares` in part/norm.wgsl.
const SQUARES_BYTES: u64 = 16;

/// Refuses a number that is not `valid`.
fn check(name: &'static str, value: f32, valid: bool, expected: &'static str) -> Result<(), Error> {
    if valid { Ok(()) } else { Err(Error::InvalidNumber { name, value: f64::from(value), expected }) }
}

impl AdamWHyper {
    fn check(&self) -> Result<(), Error> {
        const POSITIVE: &str = "finite, and at least f32's smallest normal number, 1.2e-38";
        let positive = |value: f32| value >= f32::MIN_POSITIVE && value.is_finite();
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            check(name, beta, (0.0..1.0).contains(&beta), "at least 0 and below 1")?;
        }
        check("epsilon", self.epsilon, positive(self.epsilon), POSITIVE)?;
        let decay = self.weight_decay;
        check("weight_decay", decay, decay >= 0.0 && decay.is_finite(), "finite and at least 0")?;
        self.max_norm.map_or(Ok(()), |max_norm| check("max_norm", max_norm, positive(max_norm), POSITIVE))
    }

    /// The uniform of step `step`. The powers are taken in f64, as PyTorch does.
    fn uniform(&self, groups: u32, step: u32, learning_rate: f32) -> Uniform {
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(f64::from(step));
        Uniform {
            groups,
            decay: (1.0 - f64::from(learning_rate) * f64::from(self.weight_decay)) as f32,
            beta1: self.beta1,
            beta2: self.beta2,
            step_size: (f64::from(learning_rate) / correction(self.beta1)) as f32,
            second_scale: correction(self.beta2).sqrt().recip() as f32,
            epsilon: self.epsilon,
            max_norm: self.max_norm.unwrap_or(f32::MAX),
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
        Error::check_limit("AdamW", Limit::Elements, elements as u64, 1 << 30, "split the parameters")?;
        Error::check_length("the packed layout", elements.next_multiple_of(4), elements)?;
        let groups = elements as u32 / 4;
        let [x, y] = fold("adamw", groups.div_ceil(WORKGROUP), &device.limits, "split the parameters")?;
        let clip = hyper.max_norm.is_some();
        let uniform = hyper.uniform(groups, 1, 0.0);
        let mut shaders = vec![(Shader::AdamW(AdamWShader { clip }), [x, y, 1])];
        let mut scratch_bytes = 0;
        if clip {
            let norm = [(Shader::GradientNorm, [WORKGROUP, 1, 1]), (Shader::GradientNormReduce, [1; 3])];
            shaders.splice(..0, norm);
            scratch_bytes = SQUARES_BYTES * u64::from(WORKGROUP);
        }
        let plan = |(shader, grid)| DispatchPlan::new(shader, &uniform, grid, device);
        let dispatches = shaders.into_iter().map(plan).collect::<Result<_, _>>()?;
        Ok(Self { dispatches, scratch_bytes, hyper, groups })
    }

    /// What the dispatches' uniform holds at step `step`, of which the first is 1.
    ///
    /// # Errors
    /// Step 0, a learning rate that is negative or not finite, or one so large that f32 cannot hold what is
    /// derived from it.
    pub fn uniform(&self, step: u32, learning_rate: f32) -> Result<[u8; 32], Error> {
        if step == 0 {
            return Err(Error::InvalidNumber { name: "step", value: 0.0, expected: "at least 1" });
        }
        let valid = learning_rate >= 0.0 && learning_rate.is_finite();
        check("learning_rate", learning_rate, valid, "finite and at least 0")?;
        let uniform = self.hyper.uniform(self.groups, step, learning_rate);
        let fits = uniform.decay.is_finite() && uniform.step_size.is_finite();
        let expected = "so small that f32 holds it times weight_decay, and over 1 - beta1^step";
        check("learning_rate", learning_rate, fits, expected)?;
        Ok(bytemuck::cast(uniform))
    }
}

impl AdamW {
    /// Checks the tensors, compiles the shaders where needed and binds everything.
    ///
    /// # Errors
    /// Every mistake in numbers, tensors and limits; nothing is recorded then.
    pub fn prepare(kernels: &Kernels, descriptor: &AdamWDescriptor<'_>) -> Result<Self, Error> {
        let AdamWDescriptor { elements, parameters, gradients, moments, status, hyper } = *descriptor;
        let plan = AdamWPlan::new(elements, hyper, kernels.profile())?;
        let elements = elements as u64;
        let gradients = Operand::vector("gradients", Role::Read, gradients, elements).only_f32();
        let mut operands = vec![
            Operand::vector("parameters", Role::Write, parameters, elements).only_f32(),
            gradients.clone(),
            Operand::vector("moments", Role::Write, moments, 2 * elements).only_f32(),
        ];
        // All together: the status is written before the others are read.
        let status_operand = |status, role| Operand::vector("status", role, status, 2).only_f32();
        let given = status.map(|status| status_operand(status, Role::Write));
        let all: Vec<_> = operands.iter().chain(&given).cloned().collect();
        check_operands(&all, &kernels.profile().limits)?;
        let uniform = kernels.uniform(&plan.uniform(1, 0.0)?)?;
        let dispatch = |plan, operands: &[_]| kernels.dispatch_with(plan, &uniform, operands);
        let dispatches = match &plan.dispatches[..] {
            [norm, reduce, adamw] => {
                let scratch = kernels.scratch("hydralora gradient_norm squares", plan.scratch_bytes)?;
                let own;
                let status = if let Some(status) = status {
                    status
                } else {
                    own = kernels.scratch("hydralora adamw status", size_of::<AdamWStatus>() as u64)?;
                    Tensor::from(&own)
                };
                let squares =
                    |role| Operand::vector("squares", role, Tensor::from(&scratch), plan.scratch_bytes / 4);
                let status = |role| status_operand(status, role);
                operands.push(status(Role::Read));
                vec![
                    dispatch(norm, &[gradients, squares(Role::Write)])?,
                    dispatch(reduce, &[squares(Role::Read), status(Role::Write)])?,
                    dispatch(adamw, &operands)?,
                ]
            }
            _ if status.is_some() => {
                let reason = "without max_norm there is no norm, and no step is skipped";
                return Err(Error::UnusedTensor { tensor: "status", reason });
            }
            dispatches => {
                dispatches.iter().map(|adamw| dispatch(adamw, &operands)).collect::<Result<_, _>>()?
            }
        };
        Ok(Self { dispatches, uniform, plan })
    }

    /// Sets the number of the next step (the first is 1) and its learning rate.
    ///
    /// The number is for the bias correction of the moments. A skipped step uses its number up, unless the
    /// caller reads [`AdamWStatus`] and gives it again: later steps are then corrected for one step more than
    /// the moments have seen, which matters in the first steps only.
    ///
    /// This is a `Queue::write_buffer`: it takes effect before whatever is submitted next, so record
    /// at most one step of this optimiser in a submission.
    ///
    /// # Errors
    /// Step 0, a learning rate that is negative or not finite, or one so large that f32 cannot hold what is
    /// derived from it. The step then stays as it was set before.
    pub fn set_step(&self, queue: &wgpu::Queue, step: u32, learning_rate: f32) -> Result<(), Error> {
        queue.write_buffer(&self.uniform, 0, &self.plan.uniform(step, learning_rate)?);
        Ok(())
    }

    /// Dispatches that recording it takes: one or three.
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
    fn buffers_match() {
        let source = Shader::GradientNormReduce.source();
        let module = naga::front::wgsl::parse_str(&source.wgsl).expect("valid WGSL");
        let layout = |wanted: &str| {
            let (_, ty) =
                module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some(wanted)).expect(wanted);
            let naga::TypeInner::Struct { members, span } = &ty.inner else {
                panic!("{wanted} is no struct")
            };
            let members = members.iter().map(|member| (member.name.clone(), member.offset as usize));
            (members.collect::<Vec<_>>(), *span as usize)
        };
        let member = |name: &str, offset| (Some(name.to_owned()), offset);
        let status = vec![
            member("norm", offset_of!(AdamWStatus, norm)),
            member("skipped", offset_of!(AdamWStatus, skipped)),
        ];
        assert_eq!(layout("Status"), (status, size_of::<AdamWStatus>()));
        assert_eq!(layout("Squares").1 as u64, SQUARES_BYTES);
    }

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
