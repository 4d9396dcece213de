//! Prepared operations, which are recordings with pipelines, and bound ones, which also have tensors.

use std::sync::Arc;

use super::batch::Batch;
use super::kernels::{Kernels, Shared};
use super::pipeline::Pipeline;
use super::scope::scoped;
use super::tensor::{self, Tensor};
use crate::element::Element;
use crate::error::Error;
use crate::kernel::{BindingKind, Varying};
use crate::plan::Grid;
use crate::recording::{Operand, Recording, Slot, Step};

/// An operation on a layer, planned and compiled for batches of up to its capacity. It can be bound to the
/// tensors of any number of layers with this configuration. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Prepared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    shared: Arc<Shared>,
    /// The limits that tensors are checked against.
    limits: wgpu::Limits,
    pooled: bool,
    /// For different numbers of tokens, the smallest first.
    variants: Vec<Variant>,
    scratch_bytes: u64,
}

/// A recording with its pipelines and uniforms.
#[derive(Debug)]
struct Variant {
    recording: Recording,
    compiled: Vec<(Arc<Pipeline>, Arc<wgpu::Buffer>)>,
    /// The start of each piece of scratch memory, in bytes.
    offsets: Vec<u64>,
}

/// An operation bound to tensors. It can be encoded any number of times.
#[derive(Debug)]
pub struct Bound {
    operation: &'static str,
    variants: Vec<BoundVariant>,
}

/// The dispatches for up to `capacity` tokens.
#[derive(Debug)]
struct BoundVariant {
    capacity: u32,
    dispatches: Vec<Dispatch>,
}

#[derive(Debug)]
struct Dispatch {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    grid: Grid,
}

/// The name under which a caller may give scratch memory.
const SCRATCH: &str = "scratch";

impl Prepared {
    pub(super) fn new(kernels: &Kernels, recordings: Vec<Recording>) -> Result<Self, Error> {
        let shared = Arc::clone(kernels.shared());
        let limits = kernels.profile().limits.clone();
        let alignment = u64::from(limits.min_storage_buffer_offset_alignment);
        let mut scratch_bytes = 0;
        let mut variants = Vec::new();
        for recording in recordings {
            let (offsets, end) = recording.scratch_layout(alignment);
            scratch_bytes = scratch_bytes.max(end);
            let compile =
                |step: &Step| Ok((kernels.pipeline(&step.shader)?, kernels.uniform(&step.uniform)?));
            let compiled = recording.steps.iter().map(compile).collect::<Result<_, Error>>()?;
            variants.push(Variant { recording, compiled, offsets });
        }
        let pooled = kernels.is_pooled();
        Ok(Self(Arc::new(Inner { shared, limits, pooled, variants, scratch_bytes })))
    }

    /// The recordings, for different numbers of tokens, the smallest first.
    #[must_use]
    pub fn recordings(&self) -> impl ExactSizeIterator<Item = &Recording> {
        self.0.variants.iter().map(|variant| &variant.recording)
    }

    /// Whether a tensor with this name may be bound.
    pub(crate) fn takes(&self, name: &str) -> bool {
        name == SCRATCH || self.recordings().any(|recording| recording.tensor(name).is_some())
    }

    /// Bytes of scratch memory that the operation needs while it runs; 0 if it needs none.
    #[must_use]
    pub fn scratch_bytes(&self) -> u64 {
        self.0.scratch_bytes
    }

    /// Binds tensors by their names, which the operation's options list. Tensors have room for the full
    /// capacity; a batch may have fewer tokens.
    ///
    /// This allocates scratch memory, unless a tensor `scratch` of [`Prepared::scratch_bytes`] is given.
    /// Operations that do not run at the same time may share that tensor, such as all operations in the
    /// passes of one queue.
    ///
    /// # Errors
    /// Every mistake in tensors, with the numbers. Nothing is recorded in that case.
    pub fn bind(&self, tensors: &[(&str, Tensor<'_>)]) -> Result<Bound, Error> {
        let Inner { shared, limits, pooled, variants, scratch_bytes } = &*self.0;
        let Some(Variant { recording: Recording { operation, tensors: operands, .. }, .. }) = variants.last()
        else {
            return Err(Error::Recordings { reason: "there are none" });
        };
        for (at, &(name, _)) in tensors.iter().enumerate() {
            if tensors[..at].iter().any(|&(before, _)| before == name) {
                return Err(Error::DuplicateTensor { operation, tensor: name.to_owned() });
            }
            if name != SCRATCH && operands.iter().all(|operand| operand.name != name) {
                return Err(Error::UnknownTensor { operation, tensor: name.to_owned() });
            }
        }
        let given = |name: &str| tensors.iter().find(|(given, _)| *given == name).map(|&(_, tensor)| tensor);
        let mut bound = Vec::new();
        for operand in operands {
            let missing = || Error::MissingTensor { operation, tensor: operand.name };
            bound.push(tensor::Given { operand, tensor: given(operand.name).ok_or_else(missing)? });
        }
        let scratch_operand =
            Operand::vector(SCRATCH, BindingKind::Write, Element::F32, scratch_bytes.div_ceil(4));
        let mut all = bound.clone();
        // Checked together, so that the answer does not depend on the plan.
        all.extend(given(SCRATCH).map(|tensor| tensor::Given { operand: &scratch_operand, tensor }));
        tensor::check(&all, *pooled, limits)?;
        if !pooled {
            tensor::check_buffers(&bound)?;
            // One step writes scratch memory and another only reads it, so it shares its buffer with no
            // tensor.
            let beside = given(SCRATCH).and_then(|scratch| bound.iter().find(|bound| bound.shares(&scratch)));
            if let Some(beside) = beside {
                return Err(Error::Aliased { written: SCRATCH, other: beside.operand.name });
            }
        }
        let owned;
        let scratch = match given(SCRATCH) {
            Some(tensor) => Some(tensor),
            None if *scratch_bytes == 0 => None,
            None => {
                owned = shared.scratch(*scratch_bytes)?;
                Some(Tensor::from(&owned))
            }
        };
        let variants = variants.iter().map(|variant| variant.bind(&shared.device, &bound, scratch));
        let bind = || variants.collect::<Result<_, _>>();
        let variants = scoped(&shared.device, "binding the tensors of an operation", bind)?;
        Ok(Bound { operation, variants: variants? })
    }
}

impl Variant {
    fn bind(
        &self,
        device: &wgpu::Device,
        bound: &[tensor::Given<'_>],
        scratch: Option<Tensor<'_>>,
    ) -> Result<BoundVariant, Error> {
        let resource = |slot: &Slot| match *slot {
            Slot::Tensor(name) => {
                let tensor = bound.iter().find(|bound| bound.operand.name == name);
                tensor.map(tensor::Given::resource)
            }
            Slot::Scratch(at) => {
                scratch.map(|scratch| scratch.part(self.offsets[at], self.recording.scratch[at]))
            }
        };
        let mut dispatches = Vec::new();
        for (step, (pipeline, uniform)) in self.recording.steps.iter().zip(&self.compiled) {
            let mut entries =
                vec![wgpu::BindGroupEntry { binding: 0, resource: uniform.as_entire_binding() }];
            for (binding, slot) in (1..).zip(&step.slots) {
                let operation = self.recording.operation;
                let missing = || match *slot {
                    Slot::Tensor(tensor) => Error::MissingTensor { operation, tensor },
                    Slot::Scratch(_) => Error::MissingTensor { operation, tensor: SCRATCH },
                };
                let resource = resource(slot).ok_or_else(missing)?;
                entries.push(wgpu::BindGroupEntry { binding, resource });
            }
            let bind_group = device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("hydralora"),
                layout: &pipeline.layout,
                entries: &entries,
            });
            dispatches.push(Dispatch { pipeline: Arc::clone(pipeline), bind_group, grid: step.grid });
        }
        Ok(BoundVariant { capacity: self.recording.capacity, dispatches })
    }
}

impl Bound {
    /// Number of dispatches for a batch of `tokens` tokens.
    #[must_use]
    pub fn dispatches(&self, tokens: u32) -> usize {
        self.variant(tokens).map_or(0, |variant| variant.dispatches.len())
    }

    /// Encodes the operation for the tokens of `batch`. It allocates nothing and submits nothing.
    ///
    /// # Errors
    /// More tokens than the operation was prepared for, or an operation of an optimiser. Nothing is encoded
    /// in either case.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>, batch: &Batch) -> Result<(), Error> {
        let tokens = batch.tokens();
        if self.varying() == Some(Varying::Hyper) {
            return Err(Error::NoBatch { operation: self.operation });
        }
        let Some(variant) = self.variant(tokens) else {
            let capacity = self.variants.last().map_or(0, |variant| variant.capacity);
            return Err(Error::OverCapacity { operation: self.operation, capacity, tokens });
        };
        variant.encode(pass, tokens, batch.bind_group());
        Ok(())
    }

    /// Encodes an operation without tokens. `varying` is its uniform in group 1, if it has one.
    pub(crate) fn encode_with(&self, pass: &mut wgpu::ComputePass<'_>, varying: &wgpu::BindGroup) {
        for variant in &self.variants {
            variant.encode(pass, 1, varying);
        }
    }

    /// The uniform in group 1 of the first dispatch that has one.
    fn varying(&self) -> Option<Varying> {
        let dispatches = self.variants.iter().flat_map(|variant| &variant.dispatches);
        dispatches.map(|dispatch| dispatch.pipeline.varying).find(|varying| *varying != Varying::Nothing)
    }

    fn variant(&self, tokens: u32) -> Option<&BoundVariant> {
        self.variants.iter().find(|variant| tokens <= variant.capacity)
    }
}

impl BoundVariant {
    fn encode(&self, pass: &mut wgpu::ComputePass<'_>, tokens: u32, varying: &wgpu::BindGroup) {
        for dispatch in &self.dispatches {
            let [x, y, z] = dispatch.grid.at(tokens);
            if x == 0 {
                continue;
            }
            pass.set_pipeline(&dispatch.pipeline.compute);
            pass.set_bind_group(0, &dispatch.bind_group, &[]);
            if dispatch.pipeline.varying != Varying::Nothing {
                pass.set_bind_group(1, varying, &[]);
            }
            pass.dispatch_workgroups(x, y, z);
        }
    }
}
