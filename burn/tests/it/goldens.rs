//! Whole layers that other people's code has computed: the frozen layer, the adapter, and both backwards.

use std::collections::HashMap;
use std::path::Path;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use burn_hydralora::hydralora::{Adapter, Config, Router, Sharing, Weighting};
use burn_hydralora::{HydraLinear, HydraLora};
use safetensors::SafeTensors;

use crate::common::{DEVICE, assert_close, matrix, values};

/// A file of `tests/conformance/goldens`, which has a README.
struct Golden<'a> {
    file: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> Golden<'a> {
    fn parse(bytes: &'a [u8]) -> Self {
        let (_, header) = SafeTensors::read_metadata(bytes).expect("a header");
        let metadata = header.metadata().clone().expect("metadata");
        Self { file: SafeTensors::deserialize(bytes).expect("tensors"), metadata }
    }

    fn count(&self, key: &str) -> u32 {
        self.metadata[key].parse().expect("a number")
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        let tensor = self.file.tensor(name).unwrap_or_else(|error| panic!("{name}: {error}"));
        tensor.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    /// Expectations are float64.
    fn expected(&self, name: &str) -> Vec<f32> {
        let name = format!("expect.{name}");
        let tensor = self.file.tensor(&name).unwrap_or_else(|error| panic!("{name}: {error}"));
        tensor.data().as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32).collect()
    }

    fn config(&self) -> Config {
        let is = |key: &str, value: &str| self.metadata.get(key).is_some_and(|found| found == value);
        let renormalise = is("renormalise", "true");
        Config {
            d_in: self.count("d_in"),
            d_out: self.count("d_out"),
            rank: self.count("rank"),
            experts: self.count("experts"),
            scaling: self.metadata["scaling"].parse().expect("a number"),
            router: match self.metadata["router"].as_str() {
                "input" => Router::Input,
                "latent" => Router::Latent,
                "external" => Router::GivenWeights,
                other => panic!("unknown router {other}"),
            },
            a: if is("a", "separate") { Sharing::Separate } else { Sharing::Shared },
            weighting: match self.metadata.get("top_k") {
                Some(_) => Weighting::TopK { k: self.count("top_k"), renormalise },
                None => Weighting::Softmax,
            },
            ..Config::DEFAULT
        }
    }

    /// The matrices, or their gradients: whatever `read` makes of their names.
    fn adapter(&self, read: impl Fn(&str) -> Vec<f32>) -> Adapter {
        let Config { experts, router, a, .. } = self.config();
        let all_a = match a {
            Sharing::Shared => read("lora_A.weight"),
            Sharing::Separate => (0..experts).flat_map(|i| read(&format!("lora_A{i}.weight"))).collect(),
        };
        let router = if router == Router::GivenWeights { Vec::new() } else { read("lora_route.weight") };
        let b = (0..experts).map(|i| read(&format!("lora_B{i}.weight"))).collect();
        Adapter { a: all_a, router, router_bias: Vec::new(), b }
    }
}

#[test]
fn layers_are_what_other_code_computes() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/goldens");
    let mut tested = 0;
    for entry in std::fs::read_dir(folder).expect("the goldens") {
        let path = entry.expect("a file").path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            let bytes = std::fs::read(&path).expect("a golden");
            for device in [&*DEVICE, &Device::flex()] {
                check(
                    &Golden::parse(&bytes),
                    device,
                    &path.file_stem().unwrap_or_default().to_string_lossy(),
                );
            }
            tested += 1;
        }
    }
    assert!(tested >= 12, "{tested} goldens");
}

fn check(golden: &Golden<'_>, device: &Device, name: &str) {
    let config = golden.config();
    let [d_in, d_out, experts] = [config.d_in, config.d_out, config.experts].map(|length| length as usize);
    let device = device.clone().autodiff();
    let adapter = golden.adapter(|name| golden.f32s(name));
    let adapter = HydraLora::try_from_adapter(&config, &adapter, &device).expect("an adapter");
    let linear = Linear {
        weight: Param::from_tensor(matrix(&golden.f32s("weight"), d_in, &device).transpose()),
        bias: golden.file.tensor("bias").is_ok().then(|| Param::from_data(&golden.f32s("bias")[..], &device)),
    };
    let layer = HydraLinear::new(linear, adapter);
    let x = matrix(&golden.f32s("x"), d_in, &device).require_grad();
    let given = config.router == Router::GivenWeights;
    let gates = given.then(|| matrix(&golden.f32s("gates"), experts, &device).require_grad());
    let y = layer.forward_with(x.clone(), gates.clone(), None);
    let gradients = (y.clone() * matrix(&golden.f32s("grad_y"), d_out, &device)).sum().backward();
    let of = |leaf: &Tensor<2>| values(leaf.grad(&gradients).expect("a gradient"));

    let tolerance = 2e-5;
    assert_close(&values(y), &golden.expected("y"), tolerance, &format!("{name}: y"));
    assert_close(&of(&x), &golden.expected("grad_x"), tolerance, &format!("{name}: dx"));
    if let Some(gates) = gates {
        assert_close(&of(&gates), &golden.expected("grad_gates"), tolerance, &format!("{name}: dgates"));
    }
    let packed = layer.adapter.parameters.val().grad(&gradients).expect("the parameters' gradient");
    let ours = config.layout().expect("a layout").unpack(&values(packed)).expect("gradients");
    let theirs = golden.adapter(|name| golden.expected(&format!("grad_{name}")));
    assert_close(&ours.a, &theirs.a, tolerance, &format!("{name}: dA"));
    if experts > 1 {
        assert_close(&ours.router, &theirs.router, tolerance, &format!("{name}: dW_g"));
    }
    assert_close(&ours.b.concat(), &theirs.b.concat(), tolerance, &format!("{name}: dB"));
    assert!(layer.linear.weight.val().grad(&gradients).is_none(), "{name}: the frozen weight has a gradient");
}
