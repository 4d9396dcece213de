//! The layer as operations of burn's backends: the kernels' on cubecl, and one that is differentiable over them.

use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, TensorMetadata, backend_extension};
#[cfg(feature = "fusion")]
use burn::tensor::DType;
use burn::tensor::{Shape, Slice};
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;

use crate::call::Call;
use crate::cube;

/// The library's kernels, without gradients. `rows` are matrices with a row for each token.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub trait HydraKernels: Backend {
    /// y, without what backward needs, and without dropout.
    #[fusion(dtype = x, shape = y_shape(x, call))]
    fn hydra_infer(
        base: FloatTensor<Self>,
        x: FloatTensor<Self>,
        parameters: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self>;

    /// y, and `[h, w]` for backward.
    #[fusion(meta = train_specs)]
    fn hydra_train(
        base: FloatTensor<Self>,
        x: FloatTensor<Self>,
        parameters: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        call: Call,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// `[dh, dl]`, dx and the parameters' gradient. What is not wanted has one element.
    #[fusion(meta = backward_specs)]
    fn hydra_backward(
        g: FloatTensor<Self>,
        x: FloatTensor<Self>,
        parameters: FloatTensor<Self>,
        saved: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        call: Call,
        wanted: [bool; 2],
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

#[cfg(feature = "fusion")]
fn y_shape(x: &Shape, call: &Call) -> Shape {
    Shape::from(call.y_shape(x[0]))
}

#[cfg(feature = "fusion")]
fn train_specs(
    _base: &TensorSpec,
    x: &TensorSpec,
    _parameters: &TensorSpec,
    _gates: &TensorSpec,
    _mask: &TensorSpec,
    call: &Call,
) -> (TensorSpec, TensorSpec) {
    let saved = TensorSpec::new(Shape::from(call.state_shape(x.shape[0])), DType::F32);
    (TensorSpec::new(y_shape(&x.shape, call), x.dtype), saved)
}

#[cfg(feature = "fusion")]
fn backward_specs(
    _g: &TensorSpec,
    x: &TensorSpec,
    parameters: &TensorSpec,
    saved: &TensorSpec,
    _mask: &TensorSpec,
    _call: &Call,
    &[dx, gradients]: &[bool; 2],
) -> (TensorSpec, TensorSpec, TensorSpec) {
    let wanted = |spec: &TensorSpec, is_wanted| if is_wanted { spec.clone() } else { unwanted(spec) };
    (saved.clone(), wanted(x, dx), wanted(parameters, gradients))
}

#[cfg(feature = "fusion")]
fn unwanted(spec: &TensorSpec) -> TensorSpec {
    TensorSpec::new(Shape::from([1]), spec.dtype)
}

impl HydraKernels for CubeBackend {
    fn hydra_infer(
        base: CubeTensor,
        x: CubeTensor,
        parameters: CubeTensor,
        gates: CubeTensor,
        mask: CubeTensor,
        call: Call,
    ) -> CubeTensor {
        cube::infer(base, x, [parameters, gates, mask], &call)
    }

    fn hydra_train(
        base: CubeTensor,
        x: CubeTensor,
        parameters: CubeTensor,
        gates: CubeTensor,
        mask: CubeTensor,
        call: Call,
    ) -> (CubeTensor, CubeTensor) {
        cube::train(base, x, [parameters, gates, mask], &call)
    }

    fn hydra_backward(
        g: CubeTensor,
        x: CubeTensor,
        parameters: CubeTensor,
        saved: CubeTensor,
        mask: CubeTensor,
        call: Call,
        wanted: [bool; 2],
    ) -> (CubeTensor, CubeTensor, CubeTensor) {
        cube::backward(g, x, [parameters, saved, mask], &call, wanted)
    }
}

/// The layer on any of burn's devices with the kernels, differentiable where it is an autodiff device's.
#[backend_extension(Cube, Autodiff, Fusion: cfg(feature = "fusion"))]
pub trait HydraLayer: Backend {
    /// y.
    #[fusion(dtype = x, shape = y_shape(x, call))]
    fn hydra(
        base: FloatTensor<Self>,
        x: FloatTensor<Self>,
        parameters: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self>;
}

impl HydraLayer for CubeBackend {
    fn hydra(
        base: CubeTensor,
        x: CubeTensor,
        parameters: CubeTensor,
        gates: CubeTensor,
        mask: CubeTensor,
        call: Call,
    ) -> CubeTensor {
        Self::hydra_infer(base, x, parameters, gates, mask, call)
    }
}

impl<B: HydraKernels, C: CheckpointStrategy> HydraLayer for Autodiff<B, C> {
    fn hydra(
        base: FloatTensor<Self>,
        x: FloatTensor<Self>,
        parameters: FloatTensor<Self>,
        gates: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        let mask = mask.into_primitive();
        let nodes = [base.node(), x.node(), parameters.node(), gates.node()];
        match HydraBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let (kept_x, kept_parameters) = (prep.checkpoint(&x), prep.checkpoint(&parameters));
                // The base is given away whole, so that y can be written where it lies.
                let (y, saved) = B::hydra_train(
                    base.into_primitive(),
                    x.into_primitive(),
                    parameters.into_primitive(),
                    gates.into_primitive(),
                    mask.clone(),
                    call,
                );
                prep.finish(Kept { x: kept_x, parameters: kept_parameters, saved, mask, call }, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::hydra_infer(
                base.into_primitive(),
                x.into_primitive(),
                parameters.into_primitive(),
                gates.into_primitive(),
                mask,
                call,
            )),
        }
    }
}

#[derive(Debug)]
struct HydraBackward;

/// What backward needs of forward.
#[derive(Debug, Clone)]
struct Kept<T> {
    x: NodeId,
    parameters: NodeId,
    saved: T,
    mask: T,
    call: Call,
}

impl<B: HydraKernels> Backward<B, 4> for HydraBackward {
    type State = Kept<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let Kept { x, parameters, saved, mask, call } = ops.state;
        let g = grads.consume::<B>(&ops.node);
        let [to_base, to_x, to_parameters, to_gates] = ops.parents;
        // Those that the call does not have are the parameters again.
        let to_base = to_base.filter(|_| call.adds);
        let to_gates = to_gates.filter(|_| call.gates.is_some());
        let wanted = [to_x.is_some(), to_parameters.is_some()];
        if wanted != [false; 2] || to_gates.is_some() {
            let x = checkpointer.retrieve_node_output(x);
            let parameters = checkpointer.retrieve_node_output(parameters);
            let (dstate, dx, gradients) =
                B::hydra_backward(g.clone(), x, parameters, saved, mask, call, wanted);
            if let Some(x) = to_x {
                grads.register::<B>(x.id, dx);
            }
            if let Some(parameters) = to_parameters {
                grads.register::<B>(parameters.id, gradients);
            }
            if let Some(gates) = to_gates {
                grads.register::<B>(gates.id, gate_gradients::<B>(dstate, &call));
            }
        }
        if let Some(base) = to_base {
            grads.register::<B>(base.id, g);
        }
    }
}

/// The gradient of given gates: after dh in `[dh, dl]`, summed over the tokens that share a row.
fn gate_gradients<B: Backend>(dstate: FloatTensor<B>, call: &Call) -> FloatTensor<B> {
    let tokens = dstate.shape()[0];
    let (first, experts) = (call.config.a_rows() as usize, call.config.experts as usize);
    let columns = [Slice::full(), Slice::from(first..first + experts)];
    let of_tokens = B::float_slice(dstate, &columns);
    let rows = call.gates.map_or(tokens, |gates| gates.count(tokens as u32) as usize);
    if rows == tokens {
        return of_tokens;
    }
    let shared = B::float_reshape(of_tokens, Shape::from([rows, tokens / rows, experts]));
    B::float_reshape(B::float_sum_dim(shared, 1), Shape::from([rows, experts]))
}
