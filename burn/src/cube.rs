//! The library's kernels on burn's buffers.

use burn::backend::TensorMetadata as _;
use burn::tensor::{DType, Shape};
use burn_cubecl::cubecl::server::Handle;
use burn_cubecl::cubecl::wgpu::{AutoCompiler, WgpuResource, WgpuServer};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use hydralora::{Element, Error, Operation, Prepared, Tensor};

use crate::call::{Call, element};
use crate::context::Context;

/// The library's name of what operations calculate in.
const SCRATCH: &str = "scratch";

/// y alone.
pub fn infer(base: CubeTensor, x: CubeTensor, others: [CubeTensor; 3], call: &Call) -> CubeTensor {
    forward(base, x, others, call, None)
}

/// y and `[h, w]`.
pub fn train(
    base: CubeTensor,
    x: CubeTensor,
    others: [CubeTensor; 3],
    call: &Call,
) -> (CubeTensor, CubeTensor) {
    let saved = empty(&x, &call.state_shape(tokens(&x)), DType::F32);
    (forward(base, x, others, call, Some(&saved)), saved)
}

fn forward(
    base: CubeTensor,
    x: CubeTensor,
    [parameters, gates, mask]: [CubeTensor; 3],
    call: &Call,
    saved: Option<&CubeTensor>,
) -> CubeTensor {
    let y = if call.adds {
        // A copy of a view has the view's order, so rows come first.
        let base = into_contiguous(base);
        if base.can_mut() { base } else { base.copy() }
    } else {
        empty(&x, &call.y_shape(tokens(&x)), x.dtype)
    };
    let mut run = Run::new(&x, call);
    run.reads("x", x);
    run.reads("parameters", parameters);
    if call.gates.is_some() {
        run.reads("gates", gates);
    }
    if call.masks {
        run.reads("mask", mask);
    }
    run.writes("y", &y);
    if let Some(saved) = saved {
        run.writes("saved", saved);
    }
    run.submit(&[call.forward(run.element, saved.is_some())]);
    y
}

/// `[dh, dl]`, dx and the parameters' gradient; what is not wanted has one element.
pub fn backward(
    g: CubeTensor,
    x: CubeTensor,
    [parameters, saved, mask]: [CubeTensor; 3],
    call: &Call,
    wanted: [bool; 2],
) -> (CubeTensor, CubeTensor, CubeTensor) {
    let result = |of: &CubeTensor, is_wanted| {
        let shape = of.shape();
        empty(of, if is_wanted { &shape[..] } else { &[1] }, of.dtype)
    };
    let [wants_dx, wants_gradients] = wanted;
    let dstate = result(&saved, true);
    let dx = result(&x, wants_dx);
    let gradients = result(&parameters, wants_gradients);

    let mut run = Run::new(&x, call);
    run.reads("g", g);
    run.reads("parameters", parameters);
    run.reads("saved", saved);
    if call.masks {
        run.reads("mask", mask);
    }
    run.writes("dstate", &dstate);
    if wants_dx {
        run.writes("dx", &dx);
    }
    if wants_gradients {
        run.reads("x", x);
        run.writes("gradients", &gradients);
    }
    run.submit(&call.backward(run.element, wanted));
    (dstate, dx, gradients)
}

fn tokens(x: &CubeTensor) -> usize {
    x.shape()[0]
}

fn empty(like: &CubeTensor, shape: &[usize], dtype: DType) -> CubeTensor {
    let (client, device) = (like.client.clone(), like.device.clone());
    empty_device_contiguous_dtype(client, device, Shape::from(shape.to_vec()), dtype)
}

/// Operations of one call with their tensors, on the way to one submission.
struct Run<'a> {
    call: &'a Call,
    tokens: u32,
    /// That of x, y and their gradients.
    element: Element,
    /// Any tensor of the device.
    like: CubeTensor,
    reads: Vec<(&'static str, CubeTensor)>,
    writes: Vec<(&'static str, Handle)>,
}

impl<'a> Run<'a> {
    fn new(x: &CubeTensor, call: &'a Call) -> Self {
        let element = element(x.dtype).expect("HydraLora::forward casts what kernels do not take");
        let (tokens, like) = (tokens(x) as u32, x.clone());
        Self { call, tokens, element, like, reads: Vec::new(), writes: Vec::new() }
    }

    fn reads(&mut self, name: &'static str, tensor: CubeTensor) {
        self.reads.push((name, into_contiguous(tensor)));
    }

    fn writes(&mut self, name: &'static str, tensor: &CubeTensor) {
        self.writes.push((name, tensor.handle.clone()));
    }

    /// Submits the operations in the order of burn's queue.
    fn submit(&mut self, operations: &[Operation]) {
        let context = Context::of_cube(&self.like.device).expect("HydraLora::forward looks for it");
        let result = self.try_submit(&context, operations).or_else(|error| match error {
            // In pools no two tensors may have a byte in common, such as a gradient that is x itself, and views may
            // begin anywhere. Copies lie apart.
            Error::Overlap { .. } | Error::Misaligned { .. } => {
                for (_, tensor) in &mut self.reads {
                    *tensor = tensor.copy();
                }
                self.try_submit(&context, operations)
            }
            error => Err(error),
        });
        result.unwrap_or_else(|error| panic!("hydralora: {error}"));
    }

    fn try_submit(&self, context: &Context, operations: &[Operation]) -> Result<(), Error> {
        let &Self { call, tokens, .. } = self;
        let prepare = |operation| context.prepare(operation, call, tokens);
        let prepared = operations.iter().map(prepare).collect::<Result<Vec<_>, _>>()?;
        // burn's memory, so that it can serve again.
        let client = &self.like.client;
        let scratch_bytes = prepared.iter().map(Prepared::scratch_bytes).max().filter(|&bytes| bytes > 0);
        let scratch = scratch_bytes.map(|bytes| (SCRATCH, client.empty(bytes as usize)));

        let reads = self.reads.iter().map(|(name, tensor)| (*name, tensor.handle.clone()));
        let handles: Vec<_> = reads.chain(self.writes.iter().cloned()).chain(scratch).collect();
        let run = move || {
            // What burn has queued before is submitted by this, and while the resources are held, their memory is
            // neither freed nor moved.
            let resource = |(name, handle): (&'static str, Handle)| {
                let resource = client.get_resource::<WgpuServer<AutoCompiler>>(handle);
                let failed = |error| Error::Device {
                    action: format!("asking burn for the memory of {name}"),
                    message: format!("{error:?}"),
                };
                resource.map(|resource| (name, resource)).map_err(failed)
            };
            let held = handles.into_iter().map(resource).collect::<Result<Vec<_>, _>>()?;
            let tensors: Vec<_> =
                held.iter().map(|(name, held)| self.tensor(name, held.resource())).collect();
            let bind = |prepared: &Prepared| {
                let takes =
                    |name: &str| prepared.recordings().any(|recording| recording.tensor(name).is_some());
                let taken = |(name, _): &&(&str, Tensor<'_>)| *name == SCRATCH || takes(name);
                prepared.bind(&tensors.iter().filter(taken).copied().collect::<Vec<_>>())
            };
            let bound = prepared.iter().map(bind).collect::<Result<Vec<_>, _>>()?;
            context.submit(call, tokens, &bound)
        };
        let failed = |error| Error::Device {
            action: "waiting for a turn on burn's device".to_owned(),
            message: format!("{error:?}"),
        };
        client.exclusive(run).map_err(failed)?
    }

    fn tensor<'r>(&self, name: &'r str, resource: &'r WgpuResource) -> (&'r str, Tensor<'r>) {
        let of_activations = matches!(name, "x" | "y" | "g" | "dx");
        let element = if of_activations { self.element } else { Element::F32 };
        (name, Tensor::new(&resource.buffer, resource.offset, resource.size).of(element))
    }
}
