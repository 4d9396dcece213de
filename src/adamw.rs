//! AdamW over packed parameters: one dispatch for each buffer, after the gradients' norm when gradients are
//! clipped.

use bytemuck::{Pod, Zeroable};

use crate::error::Error;
use crate::gpu::{Bound, Kernels, Tensor, Varied};
use crate::layer::{AdamWHyper, check_number};
use crate::planner::Hyper;
use crate::recording::{Operand, Recording};

/// The contents of [`AdamWDescriptor::status`] after each step with clipping: two 32-bit words.
///
/// `bytemuck` casts the bytes that were read back to it.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Default, Pod, Zeroable)]
pub struct AdamWStatus {
    /// The norm of the last step's gradients before clipping. It is NaN if a gradient is NaN, and otherwise
    /// infinite if a gradient is infinite or f32 cannot hold the norm.
    pub norm: f32,
    /// Steps skipped because their norm was not finite, counted since the tensor was zeroed.
    pub skipped: u32,
}

/// One buffer of parameters, with their gradients and moments. All have the same packed layout.
#[derive(Debug, Clone, Copy)]
pub struct AdamWBuffers<'a> {
    /// Number of elements, a multiple of four: [`Layout::len`](crate::Layout::len) for one adapter. Several
    /// adapters may lie in one buffer, with zeros between them.
    pub elements: usize,
    /// The packed parameters, f32; updated.
    pub parameters: Tensor<'a>,
    /// The packed gradients, f32.
    pub gradients: Tensor<'a>,
    /// Both moments, f32, 2 x `elements`; zeros before the first step, then updated.
    pub moments: Tensor<'a>,
}

/// The buffers and constants that AdamW is prepared with.
///
/// Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019, algorithm 2,
/// in the order of operations of PyTorch's `torch.optim.AdamW`.
#[derive(Debug, Clone, Copy, Default)]
pub struct AdamWDescriptor<'a> {
    /// The buffers. One norm covers the gradients of all of them.
    pub buffers: &'a [AdamWBuffers<'a>],
    /// An optional tensor that receives an [`AdamWStatus`] for the caller to read: 8 bytes, zeros before the
    /// first step. Only with [`AdamWHyper::max_norm`].
    pub status: Option<Tensor<'a>>,
    /// The constants.
    pub hyper: AdamWHyper,
}

/// A prepared AdamW: one dispatch for each buffer. With clipping, one more for each buffer, and one for the
/// norm.
#[derive(Debug)]
pub struct AdamW {
    bound: Vec<Bound>,
    step: Varied,
    hyper: AdamWHyper,
    bytes: u64,
}

impl AdamWHyper {
    /// The bytes of `struct Hyper` (`shaders/uniform/hyper.wgsl`) for step `step`; the first step is 1.
    /// Powers are computed in f64, as in PyTorch.
    ///
    /// # Errors
    /// Step 0, a learning rate that is negative or not finite, or one so large that f32 cannot hold a
    /// constant derived from it.
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
        // Uniform buffers come in whole 16-byte units.
        let mut bytes = [0; 32];
        bytes[..size_of::<Hyper>()].copy_from_slice(bytemuck::bytes_of(&hyper));
        Ok(bytes)
    }
}

impl AdamW {
    /// Checks the tensors, compiles the shaders if they are not cached, and binds everything.
    ///
    /// # Errors
    /// Every mistake in numbers, tensors and limits. Nothing is recorded in that case.
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
                kernels.bind_own(recording, &buffers.tensors())
            };
            let bound = recordings.iter().zip(buffers).map(bind).collect::<Result<_, _>>()?;
            return Ok(Self { bound, step, hyper, bytes: 0 });
        }
        let (norms, rest) = recordings.split_at(buffers.len());
        let (reduces, updates) = rest.split_at(1);
        // Checked together, because a dispatch writes the status before later ones read the other tensors.
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
            bound.push(kernels.bind_own(norm, &[("gradients", buffers.gradients), squares])?);
        }
        for reduce in reduces {
            bound.push(kernels.bind_own(reduce, &[squares, status])?);
        }
        for (update, buffers) in updates.iter().zip(buffers) {
            let [parameters, gradients, moments] = buffers.tensors();
            bound.push(kernels.bind_own(update, &[parameters, gradients, moments, status])?);
        }
        Ok(Self { bound, step, hyper, bytes })
    }

    /// Like [`AdamW::prepare`], for browsers, where wgpu reports later whether a pipeline compiled.
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
    /// The number serves the bias correction of the moments. A skipped step uses up its number, unless the
    /// caller reads [`AdamWStatus`] and sets the same number again. Later steps are then corrected for one
    /// step more than the moments have seen, which matters only in the first steps.
    ///
    /// This is a `Queue::write_buffer`: it takes effect before the next submission. Record at most one step
    /// of this optimiser per submission.
    ///
    /// # Errors
    /// Step 0, a learning rate that is negative or not finite, or one so large that f32 cannot hold a
    /// constant derived from it. The earlier setting then stays in place.
    pub fn set_step(&self, queue: &wgpu::Queue, step: u32, learning_rate: f32) -> Result<(), Error> {
        self.step.write(queue, &self.hyper.uniform(step, learning_rate)?);
        Ok(())
    }

    /// Bytes of memory that it allocated itself, besides uniforms.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of dispatches of one step.
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
