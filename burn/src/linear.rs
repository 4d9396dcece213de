//! A frozen layer with an adapter.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::Tensor;

use crate::hydra::{Extras, HydraLora};

/// A frozen linear layer of burn's, perhaps quantised, and the adapter that is added to its output.
#[derive(Module, Debug)]
pub struct HydraLinear {
    /// The frozen layer.
    pub linear: Linear,
    /// The adapter.
    pub adapter: HydraLora,
}

impl HydraLinear {
    /// Freezes a linear layer and adds an adapter to it.
    ///
    /// # Panics
    /// Layer and adapter have different widths.
    #[must_use]
    pub fn new(linear: Linear, adapter: HydraLora) -> Self {
        let [d_in, d_out] = linear.weight.shape().dims();
        let of_adapter = [adapter.config().d_in, adapter.config().d_out].map(|width| width as usize);
        assert!(
            of_adapter == [d_in, d_out],
            "HydraLinear: the layer is {d_in} x {d_out}, and the adapter {} x {}",
            of_adapter[0],
            of_adapter[1]
        );
        Self { linear: linear.no_grad(), adapter }
    }

    /// The frozen layer's output plus the adapter's, which is added in place where nothing else needs that memory.
    ///
    /// # Shapes
    ///
    /// - x: `[..., d_input]`
    /// - output: `[..., d_output]`
    ///
    /// # Panics
    /// As [`HydraLora::forward`].
    #[must_use]
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_with(x, None, None)
    }

    /// The same with given gates and a mask of tokens, as in [`Extras`].
    ///
    /// # Panics
    /// As [`HydraLora::forward`].
    #[must_use]
    pub fn forward_with<const D: usize>(
        &self,
        x: Tensor<D>,
        gates: Option<Tensor<2>>,
        mask: Option<Tensor<1>>,
    ) -> Tensor<D> {
        let base = Some(self.linear.forward(x.clone()));
        self.adapter.forward_with(x, Extras { base, gates, mask })
    }
}
