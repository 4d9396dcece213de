//! AdamW over packed parameters: one dispatch for each buffer, after the gradients' norm when gradients are
//! clipped.

use bytemuck::{Pod, Zeroable};

use crate::error::Error;
use crate::gpu::{Bound, Kernels, Tensor, Varied};
use crate::layer::{AdamWHyper, Layout, check_number};
use crate::planner::{Hyper, group_words};
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
    /// The adapters in the buffers, if their [groups](crate::Groups) of parameters differ: the index of the buffer, the
    /// adapter's first element there, and its layout.
    pub adapters: &'a [(usize, usize, Layout)],
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
    /// constant derived from it; a scale of the gradients that is not above 0 and at most 1.
    pub fn uniform(&self, step: u32, learning_rate: f32, gradient_scale: f32) -> Result<[u8; 64], Error> {
        if step == 0 {
            return Err(Error::number("step", 0.0, "at least 1"));
        }
        let valid = learning_rate >= 0.0 && learning_rate.is_finite();
        check_number("learning_rate", learning_rate, valid, "finite and at least 0")?;
        // A larger one could make infinite what the norm showed to be finite.
        let valid = (f32::MIN_POSITIVE..=1.0).contains(&gradient_scale);
        check_number("gradient_scale", gradient_scale, valid, "above 0 and at most 1")?;
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(f64::from(step));
        let (mut decay, mut step_size) = ([0.0; 4], [0.0; 4]);
        for (at, group) in self.groups.all().into_iter().enumerate() {
            let rate = f64::from(learning_rate) * f64::from(group.rate);
            let weight_decay = f64::from(group.weight_decay.unwrap_or(self.weight_decay));
            decay[at] = (1.0 - rate * weight_decay) as f32;
            step_size[at] = (rate / correction(self.beta1)) as f32;
        }
        let fits = decay.iter().chain(&step_size).all(|number| number.is_finite());
        let expected = "so small that f32 holds it times weight_decay, and over 1 - beta1^step";
        check_number("learning_rate", learning_rate, fits, expected)?;
        Ok(bytemuck::cast(Hyper {
            decay,
            step_size,
            beta1: self.beta1,
            beta2: self.beta2,
            second_scale: correction(self.beta2).sqrt().recip() as f32,
            epsilon: self.epsilon,
            max_norm: self.max_norm.unwrap_or(f32::MAX),
            gradient_scale,
            padding: [0; 2],
        }))
    }
}

impl AdamW {
    /// Checks the tensors, compiles the shaders if they are not cached, and binds everything.
    ///
    /// # Errors
    /// Every mistake in numbers, tensors and limits. Nothing is recorded in that case.
    pub fn prepare(kernels: &Kernels, descriptor: &AdamWDescriptor<'_>) -> Result<Self, Error> {
        let AdamWDescriptor { buffers, status, hyper, adapters } = *descriptor;
        let clip = hyper.max_norm.is_some();
        if status.is_some() && !clip {
            let reason = "without max_norm there is no norm, and no step is skipped";
            return Err(Error::UnusedTensor { tensor: "status", reason });
        }
        let elements: Vec<u64> = buffers.iter().map(|buffers| buffers.elements as u64).collect();
        let recordings = kernels.planner().adamw(&elements, &hyper)?;
        let step = kernels.varied("hydralora adamw step", &hyper.uniform(1, 0.0, 1.0)?)?;
        let groups = if hyper.has_groups() { group_buffers(kernels, buffers, adapters)? } else { Vec::new() };
        let mut bytes = groups.iter().map(wgpu::Buffer::size).sum::<u64>();
        let groups = |at: usize| groups.get(at).map(|groups| ("groups", Tensor::from(groups)));
        if !clip {
            let bind = |(at, (recording, buffers)): (usize, (&Recording, &AdamWBuffers<'_>))| {
                let tensors: Vec<_> = buffers.tensors().into_iter().chain(groups(at)).collect();
                kernels.bind_own(recording, &tensors)
            };
            let bound = recordings.iter().zip(buffers).enumerate().map(bind).collect::<Result<_, _>>()?;
            return Ok(Self { bound, step, hyper, bytes });
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
        bytes += squares;
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
        for (at, (update, buffers)) in updates.iter().zip(buffers).enumerate() {
            let tensors: Vec<_> = buffers.tensors().into_iter().chain([status]).chain(groups(at)).collect();
            bound.push(kernels.bind_own(update, &tensors)?);
        }
        Ok(Self { bound, step, hyper, bytes })
    }

    /// Like [`AdamW::prepare`], for browsers, where wgpu reports later whether a pipeline compiled.
    ///
    /// # Errors
    /// Those of [`AdamW::prepare`].
    pub async fn prepare_async(kernels: &Kernels, descriptor: &AdamWDescriptor<'_>) -> Result<Self, Error> {
        let elements: Vec<u64> = descriptor.buffers.iter().map(|buffers| buffers.elements as u64).collect();
        let recordings = kernels.planner().adamw(&elements, &descriptor.hyper)?;
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
        self.set_scaled_step(queue, step, learning_rate, 1.0)
    }

    /// Like [`AdamW::set_step`], with a factor of the gradients, which comes before everything else: 1 / the number of
    /// batches whose gradients were added, over the scale of the loss. The norm in [`AdamWStatus`] is that of the
    /// gradients as they are in their buffers, before this factor; clipping sees them after it.
    ///
    /// # Errors
    /// Those of [`AdamW::set_step`], and a factor that is not above 0 and at most 1.
    pub fn set_scaled_step(
        &self,
        queue: &wgpu::Queue,
        step: u32,
        learning_rate: f32,
        gradient_scale: f32,
    ) -> Result<(), Error> {
        self.step.write(queue, &self.hyper.uniform(step, learning_rate, gradient_scale)?);
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

/// Writes the groups of all parameters to buffers of their own.
fn group_buffers(
    kernels: &Kernels,
    buffers: &[AdamWBuffers<'_>],
    adapters: &[(usize, usize, Layout)],
) -> Result<Vec<wgpu::Buffer>, Error> {
    if adapters.is_empty() {
        return Err(Error::ZeroDimension { dimension: "the number of adapters, whose groups differ," });
    }
    for &(buffer, first, layout) in adapters {
        let Some(own) = buffers.get(buffer) else {
            let expected = format!("the index of one of the {} buffers", buffers.len());
            return Err(Error::number("an adapter's buffer", buffer as f64, expected));
        };
        let last = own.elements.checked_sub(layout.len());
        if !first.is_multiple_of(4) || last.is_none_or(|last| first > last) {
            let (len, elements) = (layout.len(), own.elements);
            let expected =
                format!("a multiple of four, with {len} elements after it in its buffer's {elements}");
            return Err(Error::number("an adapter's first element", first as f64, expected));
        }
    }
    let of_buffer = |(at, buffers): (usize, &AdamWBuffers<'_>)| {
        let own = adapters.iter().filter(|(buffer, ..)| *buffer == at);
        let own: Vec<_> = own.map(|&(_, first, layout)| (first, layout)).collect();
        let words = parameter_groups(buffers.elements, &own);
        let buffer = kernels.storage("hydralora groups", 4 * words.len() as u64)?;
        kernels.queue().write_buffer(&buffer, 0, bytemuck::cast_slice(&words));
        Ok(buffer)
    };
    buffers.iter().enumerate().map(of_buffer).collect()
}

/// The contents of the tensor `groups` of a recording of AdamW ([`Planner::adamw`](crate::Planner::adamw)) for a buffer
/// of `elements` parameters: two bits for each four of them, sixteen of which are in a word. `adapters` are the first
/// element of each adapter and its layout; parameters of none count as A.
#[must_use]
pub fn parameter_groups(elements: usize, adapters: &[(usize, Layout)]) -> Vec<u32> {
    let mut words = vec![0; group_words(elements as u64) as usize];
    for (first, layout) in adapters {
        for vec in 0..layout.len() / 4 {
            let at = first / 4 + vec;
            if let Some(word) = words.get_mut(at / 16) {
                *word |= (layout.group(4 * vec) as u32) << (2 * (at % 16));
            }
        }
    }
    words
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
