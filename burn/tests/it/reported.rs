//! Situations in which burn's LoRA was reported to give NaN gradients on wgpu (burn #5162, #5351): frozen layers one after
//! the other, in which nothing is tracked but their adapters.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::activation::gelu;
use burn::tensor::{DType, Device, Tensor};
use burn_hydralora::hydralora::{Config, Layout};
use burn_hydralora::{Extras, HydraLinear};

use crate::common::{By, Case, DEVICE, assert_close, in_own_process, random, values};

struct Chain {
    layers: Vec<HydraLinear>,
    layout: Layout,
}

impl Chain {
    /// Weights that f16 can hold, in a type.
    fn new(depth: usize, config: Config, dtype: DType, device: &Device) -> Self {
        let case = Case::new("chain", config, 1);
        let width = config.d_in as usize;
        let layer = |at| {
            let weight = random(width, width, at, device) / (width as f32).sqrt();
            let weight = Param::from_tensor(weight.cast(DType::F16).cast(dtype));
            HydraLinear::new(Linear { weight, bias: None }, case.module(device))
        };
        Self { layers: (0..depth as u64).map(layer).collect(), layout: case.layout() }
    }

    /// The output, and the gradients of its weighted sum, each as A, router and B have it.
    fn run(
        &self,
        by: By,
        x: &Tensor<2>,
        between: fn(Tensor<2>) -> Tensor<2>,
    ) -> (Vec<f32>, Vec<[Vec<f32>; 3]>) {
        let forward = |x: Tensor<2>, layer: &HydraLinear| match by {
            By::Module => layer.forward(x),
            By::Formula => layer.linear.forward(x.clone()) + layer.adapter.formula(x, Extras::default()),
        };
        let y = self.layers.iter().fold(x.clone(), |x, layer| forward(between(x), layer)).cast(DType::F32);
        let [tokens, width] = y.dims();
        let gradients = (y.clone() * (random(tokens, width, 5, &y.device()) + 0.5)).sum().backward();
        let of = |layer: &HydraLinear| {
            assert!(layer.linear.weight.val().grad(&gradients).is_none(), "frozen");
            let packed = layer.adapter.parameters.val().grad(&gradients).expect("a gradient");
            let unpacked = self.layout.unpack(&values(packed)).expect("gradients");
            [unpacked.a, unpacked.router, unpacked.b.concat()]
        };
        (values(y), self.layers.iter().map(of).collect())
    }
}

/// Holds the module's results in a type to those of burn's autodiff of the formula in f32; returns the largest gradient.
fn check(
    depth: usize,
    config: Config,
    dtype: DType,
    x: &Tensor<2>,
    between: fn(Tensor<2>) -> Tensor<2>,
) -> f32 {
    let device = x.device();
    let of = |dtype| Chain::new(depth, config, dtype, &device);
    let (y, ours) = of(dtype).run(By::Module, &x.clone().cast(dtype), between);
    let (expected, theirs) = of(DType::F32).run(By::Formula, x, between);
    let [tokens, _] = x.dims();
    let name = format!("{depth} layers, {tokens} tokens in {dtype:?}");
    let tolerance = if dtype == DType::F32 { 5e-5 } else { 1e-2 };
    assert_close(&y, &expected, tolerance, &format!("{name}: y"));
    for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        for (of, (ours, theirs)) in ["A", "router", "B"].iter().zip(ours.iter().zip(theirs)) {
            assert_close(ours, theirs, tolerance, &format!("{name}: {of} of layer {at}"));
        }
    }
    theirs.iter().flatten().flatten().fold(0.0, |largest, value| value.abs().max(largest))
}

/// #5162. It depended on what the pools had handed out before: here many tests, and nothing in a fresh process.
#[test]
fn only_adapters_are_tracked() {
    in_own_process("reported::only_adapters_are_tracked");
    let device = DEVICE.clone().autodiff();
    let config = Config { d_in: 32, d_out: 32, rank: 4, experts: 3, scaling: 2.0, ..Config::DEFAULT };
    let x = random(256, 32, 1, &device).cast(DType::F16).cast(DType::F32);
    for dtype in [DType::F32, DType::F16] {
        check(2, config, dtype, &x, gelu);
    }
}

/// #5351: four layers deep, with sums over so many tokens that f16 cannot hold the gradients.
#[test]
fn long_sequences_give_no_nan() {
    let device = DEVICE.clone().autodiff();
    let config = Config {
        d_in: 64,
        d_out: 64,
        rank: 8,
        experts: 4,
        scaling: 0.5,
        temperature: 100.0,
        ..Config::DEFAULT
    };
    for tokens in [1024, 2048] {
        let x = (random(tokens, 64, 1, &device) + 1.0) * 160.0;
        let x = x.cast(DType::F16).cast(DType::F32);
        for dtype in [DType::F32, DType::F16] {
            let largest = check(4, config, dtype, &x, |x| x);
            assert!(largest > 2.0 * 65504.0, "{largest} would fit into f16");
        }
    }
}
