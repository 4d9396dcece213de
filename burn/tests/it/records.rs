//! Records, checkpoints, initialisation, and what burn does with modules.

use std::path::Path;

use burn::config::Config as _;
use burn::module::{Module as _, Quantizer};
use burn::nn::LinearConfig;
use burn::store::ModuleRecord;
use burn::tensor::quantization::{Calibration, QuantValue};
use burn::tensor::{Device, Tensor};
use burn_hydralora::hydralora::checkpoint::{Checkpoint, CheckpointError, save};
use burn_hydralora::hydralora::{Adapter, Config, Dropout, Router, Weighting};
use burn_hydralora::{Extras, HydraLinear, HydraLora, HydraLoraConfig};

use crate::common::{Case, DEVICE, random, values};

fn config() -> HydraLoraConfig {
    HydraLoraConfig::new(16, 12, 4).with_experts(3).with_scaling(2.0)
}

#[test]
fn fresh_adapters_are_the_librarys() {
    for device in [&*DEVICE, &Device::flex()] {
        let module = config().with_seed(Some(42)).init(device);
        let adapter = Adapter::initialise(&config().layer(), 42).expect("an adapter");
        assert_eq!(module.try_to_adapter().expect("an adapter"), adapter);
        let y = values(module.forward(random(3, 16, 1, device)));
        assert!(y.iter().all(|&y| y == 0.0), "a fresh adapter adds nothing");
    }
    let [first, second] = [(); 2].map(|()| config().init(&DEVICE).try_to_adapter().expect("an adapter"));
    assert_ne!(first, second, "without a seed, each has its own");
}

#[test]
fn options_are_the_librarys() {
    let bias = HydraLoraConfig::new(16, 12, 4)
        .with_experts(3)
        .with_router(Router::Latent)
        .with_weighting(Weighting::NormalisedSigmoid)
        .with_router_bias(true)
        .with_temperature(0.5)
        .with_dropout(Some(Dropout::new(0.1)));
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("config.json");
    bias.save(&path).expect("burn saves configurations");
    let loaded = HydraLoraConfig::load(&path).expect("and loads them");
    let expected = Config {
        d_in: 16,
        d_out: 12,
        rank: 4,
        experts: 3,
        router: Router::Latent,
        weighting: Weighting::NormalisedSigmoid,
        router_bias: true,
        temperature: 0.5,
        dropout: Some(Dropout::new(0.1)),
        ..Config::DEFAULT
    };
    assert_eq!(loaded.layer(), expected);
    assert_eq!(*loaded.init(&DEVICE).config(), expected);
}

#[test]
fn records_go_round() {
    let new = |seed| {
        let adapter = config().with_seed(Some(seed)).init(&DEVICE);
        HydraLinear::new(LinearConfig::new(16, 12).init(&DEVICE), adapter)
    };
    let layer = new(1);
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("layer.bpk");
    layer.clone().into_record().save(&path).expect("burn saves it");
    let loaded = new(2).try_load_record(ModuleRecord::load(&path).expect("a file")).expect("burn loads it");
    let x = random(5, 16, 1, &DEVICE);
    assert_eq!(values(loaded.forward(x.clone())), values(layer.forward(x)));
    assert_eq!(loaded.adapter.parameters.id, layer.adapter.parameters.id);

    let other = HydraLoraConfig::new(16, 12, 5).init(&DEVICE);
    let record = layer.adapter.into_record();
    assert!(other.try_load_record(record).is_err(), "another rank has another length");
}

#[test]
fn checkpoints_of_the_library_are_read_and_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/conformance/checkpoints");
    let checkpoint = Checkpoint::open(&folder.join("hydralora_official")).expect("a checkpoint");
    let modules: Vec<_> = checkpoint
        .modules()
        .iter()
        .map(|module| {
            let adapter = HydraLora::try_from_checkpoint(&checkpoint, &module.name, &DEVICE);
            (module.name.as_str(), adapter.expect("an adapter"))
        })
        .collect();
    assert!(HydraLora::try_from_checkpoint(&checkpoint, "no such module", &DEVICE).is_err());
    let copy = tempfile::tempdir().expect("a folder");
    let configs: Vec<_> = modules.iter().map(|(name, module)| (*name, *module.config())).collect();
    let adapter = |name: &str| {
        let unknown = || CheckpointError::UnknownModule { module: name.to_owned() };
        let (_, module) = modules.iter().find(|(known, _)| *known == name).ok_or_else(unknown)?;
        Ok(module.try_to_adapter().expect("burn reads it"))
    };
    save(copy.path(), &configs, adapter).expect("a folder");
    let copy = Checkpoint::open(copy.path()).expect("a checkpoint");
    for (name, module) in &modules {
        let copied = copy.adapter(name).expect("an adapter");
        assert_eq!(copied, checkpoint.adapter(name).expect("an adapter"));
        assert_eq!(copied, module.try_to_adapter().expect("an adapter"));
    }
}

#[test]
fn modules_move_freeze_and_print() {
    let case = Case::new("plain", config().layer(), 5);
    let module = case.module(&DEVICE);
    let moved = module.clone().to_device(&Device::flex());
    let x = random(5, 16, 1, &DEVICE);
    let there = values(moved.forward(Tensor::<2>::from_data(x.clone().into_data(), &Device::flex())));
    crate::common::assert_close(&there, &values(module.forward(x)), 2e-5, "on another device");
    let text = module.to_string();
    assert!(text.contains("HydraLoRA 16 -> 12, rank 4, 3 experts"), "{text}");
    assert_eq!(module.num_params(), case.layout().len());
}

#[test]
fn dropout_is_for_training() {
    let config = config().with_dropout(Some(Dropout::new(0.5))).layer();
    let case = Case::new("dropout", config, 8);
    for device in [&*DEVICE, &Device::flex()] {
        let training = device.clone().autodiff();
        let module = case.module(&training);
        let x = random(8, 16, 1, &training);
        let forward = |module: &HydraLora| values(module.forward(x.clone()));
        assert_ne!(forward(&module), forward(&module), "each step drops others");
        let again = module.clone().with_seed(0);
        let anew = module.clone().with_seed(0);
        if burn_hydralora::is_registered(device) {
            assert_eq!(forward(&again), forward(&anew), "a seed's first step is the same");
        }
        let frozen = module.clone().freeze();
        assert_eq!(forward(&frozen), forward(&frozen), "a frozen module drops nothing");
        let valid = module.valid();
        let x = x.clone().inner();
        let [first, second] = [(); 2].map(|()| values(valid.forward(x.clone())));
        assert_eq!(first, second, "inference drops nothing");
    }
}

#[test]
fn gates_can_be_read() {
    let case = Case::new("plain", config().layer(), 6);
    let module = case.module(&DEVICE);
    let gates = module.gates(random(6, 16, 1, &DEVICE).reshape([2, 3, 16]));
    assert_eq!(gates.dims(), [2, 3, 3]);
    for gates in values(gates).chunks(3) {
        assert!((gates.iter().sum::<f32>() - 1.0).abs() < 1e-5, "{gates:?}");
    }
    let one = HydraLoraConfig::new(16, 12, 4).init(&DEVICE);
    assert_eq!(values(one.gates(random(2, 16, 1, &DEVICE))), [1.0, 1.0]);
}

#[test]
fn the_frozen_layer_may_be_quantised() {
    let device = DEVICE.clone().autodiff();
    let case = Case::new("plain", HydraLoraConfig::new(32, 64, 4).with_experts(3).layer(), 6);
    let scheme = device.settings().quantization.scheme.with_value(QuantValue::Q8S);
    let linear = LinearConfig::new(32, 64).with_bias(false).init(&device).no_grad();
    let linear = linear.quantize_weights(&mut Quantizer::new(Calibration::MinMax, scheme));
    let weight = linear.weight.val().dequantize();
    let layer = HydraLinear::new(linear, case.module(&device));
    let x = random(6, 32, 1, &device).require_grad();
    let y = layer.forward(x.clone());
    let expected = x.clone().matmul(weight) + layer.adapter.formula(x.clone(), Extras::default());
    crate::common::assert_close(&values(y.clone()), &values(expected.clone()), 1e-4, "y");
    let gradients = [y, expected].map(|y| {
        let gradients = y.powf_scalar(2.0).sum().backward();
        let of_parameters = layer.adapter.parameters.val().grad(&gradients).expect("a gradient");
        [values(of_parameters), values(x.grad(&gradients).expect("dx"))]
    });
    crate::common::assert_close(&gradients[0][0], &gradients[1][0], 1e-3, "gradients");
    crate::common::assert_close(&gradients[0][1], &gradients[1][1], 1e-3, "dx, through quantised weights");
}
