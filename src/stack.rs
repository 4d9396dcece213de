//! A whole model: the adapters of all its modules, their training state, and one optimiser.

use crate::adamw::{AdamW, AdamWBuffers, AdamWDescriptor, AdamWStatus};
use crate::element::Element;
use crate::error::{Error, Limit};
use crate::gpu::{Batch, Bound, Kernels, Tensor};
use crate::layer::{AdamWHyper, Adapter, Config, ForwardOptions, Needs, Operation, Pack, Place, Shelves};
use crate::memory::Memory;
use crate::plan::Capacity;
use crate::recording::Recording;

/// The modules, operations and constants of a stack.
#[derive(Debug, Clone, Default)]
pub struct StackDescriptor<'a> {
    /// The adapted modules: their names and layers. Layers whose dropout has the same stream drop the same places of their
    /// inputs: see [`Dropout::stream`](crate::Dropout::stream).
    pub modules: &'a [(&'a str, Config)],
    /// The most tokens of a batch.
    pub capacity: Capacity,
    /// The operations on each module: [`Operation::training_step`], or a forward alone.
    pub operations: &'a [Operation],
    /// The optimiser's constants, used if the operations include a `backward_params`. Clipping uses one norm
    /// for the gradients of all modules.
    pub hyper: AdamWHyper,
}

/// A model's adapters in as few buffers as the device allows, and all tensors besides the activations:
/// gradients, moments, the state that forward saves for backward, and scratch memory that all operations
/// share.
///
/// All modules share scratch memory and `dstate`: encode a module's `backward_input` and `backward_params`
/// one after the other, before those of the next module.
///
/// A stack allocates only what its operations need: for a forward alone, parameters and perhaps scratch
/// memory.
#[derive(Debug)]
pub struct Stack {
    kernels: Kernels,
    capacity: Capacity,
    pack: Pack,
    parameters: Vec<wgpu::Buffer>,
    gradients: Vec<wgpu::Buffer>,
    moments: Vec<wgpu::Buffer>,
    saved: Vec<wgpu::Buffer>,
    /// The place of each module's part of `saved`: buffer and offset in bytes.
    saved_places: Vec<(usize, u64)>,
    dstate: Option<wgpu::Buffer>,
    scratch: Option<wgpu::Buffer>,
    optimiser: Option<AdamW>,
    status: Option<wgpu::Buffer>,
    memory: Memory,
}

impl Stack {
    /// Plans and compiles the operations, once for each configuration, and allocates everything. Parameters
    /// are zero until [`Stack::write`] sets them.
    ///
    /// # Errors
    /// Every mistake in modules, shapes and limits; too little memory.
    pub fn new(kernels: &Kernels, descriptor: &StackDescriptor<'_>) -> Result<Self, Error> {
        let StackDescriptor { modules, capacity, operations, hyper } = descriptor;
        let limits = &kernels.profile().limits;
        let pack = Pack::new(modules.iter().copied(), limits)?;
        let Needs { saved: saves, dstate: backward, gradients: trains, .. } = Needs::of(operations);
        for operation in *operations {
            if let Operation::Forward(ForwardOptions { parameters: needed, .. }) = *operation
                && needed != Element::F32
            {
                return Err(Error::WrongElement { tensor: "parameters", given: Element::F32, needed });
            }
        }
        if modules.is_empty() {
            return Err(Error::ZeroDimension { dimension: "the number of modules" });
        }
        let mut scratch_bytes = 0;
        for (_, config) in *modules {
            for operation in *operations {
                let prepared = kernels.prepare(operation, config, *capacity)?;
                scratch_bytes = scratch_bytes.max(prepared.scratch_bytes());
            }
        }
        let state = |config: &Config| config.state_bytes(capacity.tokens);
        let mut shelves = Shelves::new(limits.max_storage_buffer_binding_size.min(limits.max_buffer_size));
        let mut saved_places = Vec::new();
        for (name, config) in modules.iter().filter(|_| saves) {
            Error::check_limit(
                format_args!("saved of {name} (bytes)"),
                Limit::StorageBufferBindingSize,
                state(config),
                limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
                "process fewer tokens at a time",
            )?;
            saved_places.push(shelves.place(state(config)));
        }
        let each = |label: &str, bytes: &dyn Fn(usize) -> u64, wanted: bool| {
            let buffers = pack.buffers().iter().filter(|_| wanted);
            buffers.map(|&elements| kernels.storage(label, bytes(elements))).collect::<Result<Vec<_>, _>>()
        };
        let parameters = each("hydralora parameters", &|elements| 4 * elements as u64, true)?;
        let gradients = each("hydralora gradients", &|elements| 4 * elements as u64, trains)?;
        let moments = each("hydralora moments", &|elements| 8 * elements as u64, trains)?;
        let saved = shelves.bytes().map(|bytes| kernels.storage("hydralora saved", bytes));
        let saved = saved.collect::<Result<Vec<_>, _>>()?;
        let some = |label: &str, bytes: u64| (bytes > 0).then(|| kernels.storage(label, bytes)).transpose();
        let dstate_bytes = modules.iter().map(|(_, config)| state(config)).max().filter(|_| backward);
        let dstate = some("hydralora dstate", dstate_bytes.unwrap_or_default())?;
        let scratch = some("hydralora scratch", scratch_bytes)?;
        let status_bytes =
            if trains && hyper.max_norm.is_some() { size_of::<AdamWStatus>() as u64 } else { 0 };
        let status = some("hydralora adamw status", status_bytes)?;
        let optimiser = if trains {
            let tensors = parameters.iter().zip(&gradients).zip(&moments);
            let buffers: Vec<_> = tensors
                .zip(pack.buffers())
                .map(|(((parameters, gradients), moments), &elements)| AdamWBuffers {
                    elements,
                    parameters: parameters.into(),
                    gradients: gradients.into(),
                    moments: moments.into(),
                })
                .collect();
            let status = status.as_ref().map(Tensor::from);
            let places = pack.places().iter();
            let adapters: Vec<_> =
                places.map(|place| (place.buffer(), place.elements().start, *place.layout())).collect();
            let (buffers, hyper) = (&buffers[..], *hyper);
            Some(AdamW::prepare(kernels, &AdamWDescriptor { buffers, status, hyper, adapters: &adapters })?)
        } else {
            None
        };
        let bytes = |buffers: &[wgpu::Buffer]| buffers.iter().map(wgpu::Buffer::size).sum();
        let memory = Memory {
            parameters: bytes(&parameters),
            gradients: bytes(&gradients),
            moments: bytes(&moments),
            saved: bytes(&saved),
            dstate: dstate.as_ref().map_or(0, wgpu::Buffer::size),
            scratch: scratch.as_ref().map_or(0, wgpu::Buffer::size),
            optimiser: optimiser.as_ref().map_or(0, AdamW::bytes) + status_bytes,
        };
        Ok(Self {
            kernels: kernels.clone(),
            capacity: *capacity,
            pack,
            parameters,
            gradients,
            moments,
            saved,
            saved_places,
            dstate,
            scratch,
            optimiser,
            status,
            memory,
        })
    }

    /// Like [`Stack::new`], for browsers, where wgpu reports later whether a pipeline compiled.
    ///
    /// # Errors
    /// Those of [`Stack::new`].
    pub async fn new_async(kernels: &Kernels, descriptor: &StackDescriptor<'_>) -> Result<Self, Error> {
        for (_, config) in descriptor.modules {
            for operation in descriptor.operations {
                kernels.prepare_async(operation, config, descriptor.capacity).await?;
            }
        }
        // AdamW's shaders do not depend on the number of elements.
        let optimiser = kernels.planner().adamw(&[4], &descriptor.hyper)?;
        kernels.warm_async(optimiser.iter().flat_map(Recording::shaders)).await?;
        Self::new(kernels, descriptor)
    }

    /// The place of each adapter.
    #[must_use]
    pub fn pack(&self) -> &Pack {
        &self.pack
    }

    /// The bytes that the stack has allocated.
    #[must_use]
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// The buffers of parameters. [`Pack::places`] gives the place of each adapter in them.
    #[must_use]
    pub fn parameters(&self) -> &[wgpu::Buffer] {
        &self.parameters
    }

    /// The buffers of gradients, laid out like the parameters; none without a `backward_params`.
    #[must_use]
    pub fn gradients(&self) -> &[wgpu::Buffer] {
        &self.gradients
    }

    /// The buffers of moments, one for each buffer of parameters: all first moments, then all second moments.
    /// None without a `backward_params`.
    #[must_use]
    pub fn moments(&self) -> &[wgpu::Buffer] {
        &self.moments
    }

    /// The optimiser over all parameters; none without a `backward_params`.
    #[must_use]
    pub fn optimiser(&self) -> Option<&AdamW> {
        self.optimiser.as_ref()
    }

    /// The buffer with the [`AdamWStatus`], if the optimiser clips.
    #[must_use]
    pub fn status(&self) -> Option<&wgpu::Buffer> {
        self.status.as_ref()
    }

    /// A batch with the stack's capacity of tokens.
    ///
    /// # Errors
    /// No tokens, too little memory or a lost device.
    pub fn batch(&self) -> Result<Batch, Error> {
        Batch::new(&self.kernels, self.capacity.tokens)
    }

    /// Sets the parameters of a module. It takes effect before the next submission.
    ///
    /// # Errors
    /// A module that the stack does not have, or matrices with other shapes.
    pub fn write(&self, module: &str, adapter: &Adapter) -> Result<(), Error> {
        let place = self.place(module)?;
        self.write_to(&self.parameters[place.buffer()], place.offset(), &place.layout().pack(adapter)?);
        Ok(())
    }

    fn write_to(&self, buffer: &wgpu::Buffer, offset: u64, packed: &[f32]) {
        self.kernels.queue().write_buffer(buffer, offset, &Element::F32.encode(packed));
    }

    /// Sets the parameters of all modules from a checkpoint, one module after the other. It takes effect before the next
    /// submission. The stack must have the checkpoint's modules: see
    /// [`Checkpoint::configs`](crate::checkpoint::Checkpoint::configs).
    ///
    /// # Errors
    /// Modules that only one of the two has or that are other layers, in which case nothing is set, and the errors of
    /// reading. Dropout does not count.
    #[cfg(feature = "checkpoint")]
    pub fn load(
        &self,
        checkpoint: &crate::checkpoint::Checkpoint,
    ) -> Result<(), crate::checkpoint::CheckpointError> {
        // Those that the stack does not have, and those that are other layers: shapes alone do not tell scalings apart.
        for module in checkpoint.modules() {
            let own = self.place(&module.name)?.config();
            let [expected, found] = [own, &module.config].map(crate::checkpoint::described);
            if expected != found {
                let module = module.name.clone();
                return Err(crate::checkpoint::CheckpointError::Layer { module, expected, found });
            }
        }
        let has = |name: &str| checkpoint.modules().iter().any(|module| module.name == name);
        if let Some(place) = self.pack.places().iter().find(|place| !has(place.name())) {
            let module = place.name().to_owned();
            return Err(crate::checkpoint::CheckpointError::UnknownModule { module });
        }
        for place in self.pack.places() {
            self.write(place.name(), &checkpoint.adapter(place.name())?)?;
        }
        Ok(())
    }

    /// Sets the parameters and moments of all modules to what they were when training was saved, one module after the
    /// other, and returns the number of steps taken: the next has that number and one. It takes effect before the next
    /// submission. The same steps on the same device then give the same bits as if training had not been interrupted.
    ///
    /// # Errors
    /// A stack without an optimiser, modules that were not saved or that are other layers, and matrices with other shapes, in which
    /// case nothing is set, and the errors of reading. Dropout does not count.
    #[cfg(feature = "checkpoint")]
    pub fn resume(
        &self,
        training: &crate::checkpoint::Training,
    ) -> Result<u32, crate::checkpoint::CheckpointError> {
        for place in self.pack.places() {
            self.moments_of(place)?;
            training.check(place.name(), place.config())?;
        }
        for place in self.pack.places() {
            let state = training.module(place.name(), place.config())?;
            self.write(place.name(), &state.parameters)?;
            let moments = self.moments_of(place)?;
            let second = 4 * self.pack.buffers()[place.buffer()] as u64;
            for (first, adapter) in [(0, &state.first_moments), (second, &state.second_moments)] {
                self.write_to(moments, first + place.offset(), &place.layout().pack(adapter)?);
            }
        }
        Ok(training.step())
    }

    /// The modules' names and layers.
    #[must_use]
    pub fn configs(&self) -> Vec<(&str, Config)> {
        self.pack.places().iter().map(|place| (place.name(), *place.config())).collect()
    }

    /// The place of a module in the stack's buffers.
    ///
    /// # Errors
    /// A module that the stack does not have.
    pub fn place(&self, module: &str) -> Result<&Place, Error> {
        Ok(&self.pack.places()[self.find(module)?])
    }

    /// The buffer with a module's moments.
    #[cfg(feature = "checkpoint")]
    pub(crate) fn moments_of(&self, place: &Place) -> Result<&wgpu::Buffer, Error> {
        self.moments.get(place.buffer()).ok_or(Error::NoOptimiser)
    }

    /// Binds an operation of a module to the caller's activations: those of `x`, `y`, `g` and `dx` that the
    /// operation has. The stack provides its own tensors for the others, unless they are given.
    ///
    /// # Errors
    /// A module that the stack does not have; the errors of [`Kernels::prepare`] and
    /// [`Prepared::bind`](crate::Prepared::bind).
    pub fn bind<'s>(
        &'s self,
        module: &str,
        operation: &Operation,
        activations: &[(&str, Tensor<'s>)],
    ) -> Result<Bound, Error> {
        let at = self.find(module)?;
        let place = &self.pack.places()[at];
        let prepared = self.kernels.prepare(operation, place.config(), self.capacity)?;
        let state = place.config().state_bytes(self.capacity.tokens);
        let adapter = |buffers: &'s [wgpu::Buffer]| {
            let buffer = buffers.get(place.buffer())?;
            Some(Tensor::new(buffer, place.offset(), place.layout().bytes()))
        };
        let saved = self.saved_places.get(at);
        let saved = saved.map(|&(buffer, offset)| Tensor::new(&self.saved[buffer], offset, state));
        let dstate = self.dstate.as_ref().map(|dstate| Tensor::new(dstate, 0, state));
        let scratch = prepared.scratch_bytes();
        let scratch = self.scratch.as_ref().filter(|own| (1..=own.size()).contains(&scratch));
        let own = [
            ("parameters", adapter(&self.parameters)),
            ("gradients", adapter(&self.gradients)),
            ("saved", saved),
            ("dstate", dstate),
            ("scratch", scratch.map(Tensor::from)),
        ];
        let mut tensors = activations.to_vec();
        for (name, tensor) in own {
            let given = activations.iter().any(|(given, _)| *given == name);
            if prepared.takes(name) && !given {
                tensors.extend(tensor.map(|tensor| (name, tensor)));
            }
        }
        prepared.bind(&tensors)
    }

    /// The index of a module.
    fn find(&self, module: &str) -> Result<usize, Error> {
        self.pack.index(module).ok_or_else(|| Error::UnknownModule { module: module.to_owned() })
    }
}
