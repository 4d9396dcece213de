//! AdamW over packed parameters: a dispatch for each buffer, and before them the gradients' norm when they are
//! clipped.

use bytemuck::{Pod, Zeroable};

use crate::error::Error;
use crate::gpu::{Bound, Kernels, Tensor, Varied};
use crate::layer::{AdamWHyper, check_number};
use crate::planner::Hyper;
use crate::recording::{Operand, Recording};

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

/// One buffer of parameters, with what belongs to them. All are packed alike.
#[derive(Debug, Clone, Copy)]
pub struct AdamWBuffers<'a> {
    /// Number of elements, a multiple of four: one adapter's [`Layout::len`](crate::Layout::len), or
    /// several adapters in one buffer, with zeros between them.
    pub elements: usize,
    /// The packed parameters, f32; updated.
    pub parameters: Tensor<'a>,
    /// The packed gradients, f32.
    pub gradients: Tensor<'a>,
    /// Both moments, f32, twice `elements`; zeros before the first step, then updated.
    pub moments: Tensor<'a>,
}

/// What AdamW is prepared with.
///
/// Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2,
/// in the order of operations of PyTorch's `torch.optim.AdamW`.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdamWDescriptor<'a> {
    /// The buffers. Their gradients have one norm together.
    pub buffers: &'a [AdamWBuffers<'a>],
    /// Where to leave an [`AdamWStatus`], 8 bytes, zeros before the first step; only with
    /// [`AdamWHyper::max_norm`]. For those who want to read it.
    pub status: Option<Tensor<'a>>,
    /// The constants.
    pub hyper: AdamWHyper,
}

/// A prepared AdamW: a dispatch for each buffer, and, where gradients are clipped, one more for each and
/// another for their norm.
#[derive(Debug)]
pub struct AdamW {
    bound: Vec<Bound>,
    step: Varied,
    hyper: AdamWHyper,
    bytes: u64,
}

impl AdamWHyper {
    /// What `struct Hyper` in part/hyper.wgsl holds at step `step`, of which the first is 1. The powers are taken
    /// in f64, as PyTorch does.
    ///
    /// # Errors
    /// Step 0, a learning rate that is negative or not finite, or one so large that f32 cannot hold what is
    /// derived from it.
    pub fn uniform(&self, step: u32, learning_rate: f32) -> Result<[u8; 32], Error> {
        if step == 0 {
            return Err(Error::InvalidNumber { name: "step", value: 0.0, expected: "at least 1" });
        }
        let valid = learning_rate >= 0.0 && learning_rate.is_finite();
        check_number("learning_rate", learning_rate, valid, "finite and at least 0")?;
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(f64::from(step));
        let hyper = Hyper {
            decay: (1.0 - f64::from(learning_rate) * f64::from(self.weight_decay)) as f32,
            beta1: self.beta1,
            beta2: self.beta2,
            step_size: (f64::from(learning_rate) / correction(self.beta1)) as f32,
            second_scale: correction(self.beta2).sqrt().recip() as f32,
            epsilon: self.epsilon,
            max_norm: self.max_norm.unwrap_or(f32::MAX),
        };
        let fits = hyper.decay.is_finite() && hyper.step_size.is_finite();
        let expected = "so small that f32 holds it times weight_decay, and over 1 - beta1^step";
        check_number("learning_rate", learning_rate, fits, expected)?;
        // Uniform buffers are whole 16-byte units.
        let mut bytes = [0; 32];
        bytes[..size_of::<Hyper>()].copy_from_slice(bytemuck::bytes_of(&hyper));
        Ok(bytes)
    }
}

impl AdamW {
    /// Checks the tensors, compiles the shaders where needed and binds everything.
    ///
    /// # Errors
    /// Every mistake in numbers, tensors and limits; nothing is recorded then.
    pub fn prepare(kernels: &Kernels, descriptor: &AdamWDescriptor<'_>) -> Result<Self, Error> {
        let AdamWDescriptor { buffers, status, hyper } = *descriptor;
        hyper.check()?;
        let clip = hyper.max_norm.is_some();
        if status.is_some() && !clip {
            let reason = "without max_norm there is no norm, and no step is skipped";
            return Err(Error::UnusedTensor { tensor: "status", reason });
        }
        let elements: Vec<u64> = buffers.iter().map(|buffers| buffers.elements as u64).collect();
        let recordings = kernels.planner().adamw(&elements, clip)?;
        let step = kernels.varied("hydralora adamw step", &hyper.uniform(1, 0.0)?)?;
        if !clip {
            let bind = |(recording, buffers): (&Recording, &AdamWBuffers<'_>)| {
                kernels.bind(recording, &buffers.tensors())
            };
            let bound = recordings.iter().zip(buffers).map(bind).collect::<Result<_, _>>()?;
            return Ok(Self { bound, step, hyper, bytes: 0 });
        }
        let (norms, rest) = recordings.split_at(buffers.len());
        let (reduces, updates) = rest.split_at(1);
        // All together: the status is written before the others are read.
        let mut all = Vec::new();
        for (update, buffers) in updates.iter().zip(buffers) {
            let operands =
                buffers.tensors().map(|(name, tensor)| update.tensor(name).map(|operand| (operand, tensor)));
            all.extend(operands.into_iter().flatten());
        }
        all.extend(reduces[0].tensor("status").zip(status));
        kernels.check(&all)?;
        let squares = reduces[0].tensor("squares").map_or(0, Operand::bytes);
        let mut bytes = squares;
        let squares = kernels.shared().scratch(squares)?;
        let squares = ("squares", Tensor::from(&squares));
        let own;
        let status = if let Some(status) = status {
            status
        } else {
            bytes += size_of::<AdamWStatus>() as u64;
            own = kernels.shared().scratch(size_of::<AdamWStatus>() as u64)?;
            Tensor::from(&own)
        };
        let status = ("status", status);
        let mut bound = Vec::new();
        for (norm, buffers) in norms.iter().zip(buffers) {
            bound.push(kernels.bind(norm, &[("gradients", buffers.gradients), squares])?);
        }
        for reduce in reduces {
            bound.push(kernels.bind(reduce, &[squares, status])?);
        }
        for (update, buffers) in updates.iter().zip(buffers) {
            let [parameters, gradients, moments] = buffers.tensors();
            bound.push(kernels.bind(update, &[parameters, gradients, moments, status])?);
        }
        Ok(Self { bound, step, hyper, bytes })
    }

    /// Like [`AdamW::prepare`], for browsers, where wgpu reports only later whether a pipeline compiled.
    ///
    /// # Errors
    /// Those of [`AdamW::prepare`].
    pub async fn prepare_async(kernels: &Kernels, descriptor: &AdamWDescriptor<'_>) -> Result<Self, Error> {
        descriptor.hyper.check()?;
        let elements: Vec<u64> = descriptor.buffers.iter().map(|buffers| buffers.elements as u64).collect();
        let recordings = kernels.planner().adamw(&elements, descriptor.hyper.max_norm.is_some())?;
        kernels.warm_async(recordings.iter().flat_map(Recording::shaders)).await?;
        Self::prepare(kernels, descriptor)
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
        self.step.write(queue, &self.hyper.uniform(step, learning_rate)?);
        Ok(())
    }

    /// Bytes of memory of its own, beside uniforms.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Dispatches that encoding it takes.
    #[must_use]
    pub fn dispatches(&self) -> usize {
        self.bound.iter().map(|bound| bound.dispatches(1)).sum()
    }

    /// Encodes one step.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        for bound in &self.bound {
            bound.encode_with(pass, self.step.bind_group());
        }
    }
}

impl<'a> AdamWBuffers<'a> {
    fn tensors(&self) -> [(&'static str, Tensor<'a>); 3] {
        [("parameters", self.parameters), ("gradients", self.gradients), ("moments", self.moments)]
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::kernel::Shader;

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
    }
}
