//! Situations in which burn's LoRA was reported to give NaN gradients on wgpu (burn #5162, #5351).

use burn::module::Module as _;
use burn::nn::LinearConfig;
use burn::tensor::{DType, Tensor};
use burn_hydralora::{Extras, HydraLinear, HydraLoraConfig};

use crate::common::{Case, DEVICE, assert_close, random, values};

/// Of a whole model only adapters are tracked: nothing in front of the first, frozen layers between.
#[test]
fn only_adapters_are_tracked() {
    let device = DEVICE.clone().autodiff();
    let config = HydraLoraConfig::new(32, 32, 4).with_experts(3).with_scaling(2.0);
    let case = Case::new("tracked", config.layer(), 20);
    let layer = || HydraLinear::new(LinearConfig::new(32, 32).init(&device), case.module(&device));
    let layers = [layer(), layer()];
    let x = random(20, 32, 1, &device);
    let hidden = burn::tensor::activation::gelu(layers[0].forward(x.clone()));
    let loss = layers[1].forward(hidden).powf_scalar(2.0).mean();
    let gradients = loss.backward();
    let ours = layers.each_ref().map(|layer| {
        assert!(layer.linear.weight.val().grad(&gradients).is_none(), "frozen");
        values(layer.adapter.parameters.val().grad(&gradients).expect("a gradient"))
    });
    let by_formula = |layer: &HydraLinear, x: Tensor<2>| {
        layer.linear.forward(x.clone()) + layer.adapter.formula(x, Extras::default())
    };
    let hidden = burn::tensor::activation::gelu(by_formula(&layers[0], x));
    let gradients = by_formula(&layers[1], hidden).powf_scalar(2.0).mean().backward();
    for (layer, ours) in layers.iter().zip(ours) {
        let theirs = values(layer.adapter.parameters.val().grad(&gradients).expect("a gradient"));
        assert_close(&ours, &theirs, 5e-5, "gradients");
    }
}

/// Long sequences, in f32 and in f16, whose sums over tokens leave what f16 can hold.
#[test]
fn long_sequences_give_no_nan() {
    for (dtype, tokens) in [(DType::F32, 1024), (DType::F32, 1500), (DType::F16, 1024), (DType::F16, 2048)] {
        let device = DEVICE.clone().autodiff();
        let config = HydraLoraConfig::new(64, 64, 8).with_experts(4).with_scaling(2.0);
        let case = Case::new("long", config.layer(), 4);
        let adapter = case.module(&device);
        let x = random(tokens, 64, 1, &device).reshape([2, tokens / 2, 64]);
        let results = [DType::F32, dtype].map(|dtype| {
            let x = x.clone().cast(dtype).require_grad();
            let y = adapter.forward(x.clone());
            assert_eq!(y.dtype(), dtype);
            // Gradients of a mean are small in f16, so the loss is a sum over some outputs.
            let gradients = (y * 0.125).sum().backward();
            let dx = values(x.grad(&gradients).expect("dx"));
            (dx, values(adapter.parameters.val().grad(&gradients).expect("the gradient")))
        });
        let [(expected_dx, expected), (dx, gradients)] = results;
        let tolerance = if dtype == DType::F32 { 1e-6 } else { 1e-2 };
        let name = format!("{tokens} tokens in {dtype:?}");
        assert_close(&dx, &expected_dx, tolerance, &format!("{name}: dx"));
        assert_close(&gradients, &expected, tolerance, &format!("{name}: gradients"));
        assert_eq!(adapter.num_params(), case.layout().len());
    }
}
