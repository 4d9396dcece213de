//! Mistakes are errors that say what to do, and burn goes on afterwards.

use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::nn::LinearConfig;
use burn::tensor::wgpu::{WgpuSetup, wgpu};
use burn::tensor::{Device, Tensor};
use burn_hydralora::hydralora::{Config, GateRows, Router, Weighting, device};
use burn_hydralora::{Error, Extras, HydraLinear, HydraLoraConfig, register};

use crate::common::{Case, DEVICE, random, values};

/// The message of a panic.
fn panics<T>(action: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(action)).err().expect("it is refused");
    panic
        .downcast_ref::<String>()
        .cloned()
        .unwrap_or_else(|| panic.downcast_ref::<&str>().unwrap().to_string())
}

#[test]
fn wrong_shapes_panic_with_both() {
    let config = Config { d_in: 16, d_out: 12, rank: 4, experts: 3, ..Config::DEFAULT };
    let case = Case::new("plain", config, 5);
    let module = case.module(&DEVICE);
    let x = || random(5, 16, 1, &DEVICE);
    let gates = |rows| Some(random(rows, 3, 1, &DEVICE));
    let with = |extras| panics(|| module.forward_with(x(), extras));
    let shape = panics(|| module.forward(random(5, 15, 1, &DEVICE)));
    assert!(shape.contains("[5, 15]") && shape.contains("d_input, 16"), "{shape}");
    let base = with(Extras { base: Some(x()), ..Extras::default() });
    assert!(base.contains("[5, 16]") && base.contains("[5, 12]"), "{base}");
    let half = random(5, 12, 1, &DEVICE).cast(burn::tensor::DType::F16);
    let dtype = with(Extras { base: Some(half), ..Extras::default() });
    assert!(dtype.contains("F16") && dtype.contains("F32"), "{dtype}");
    let mask = with(Extras { mask: Some(Tensor::ones([4], &*DEVICE)), ..Extras::default() });
    assert!(mask.contains("4 numbers") && mask.contains("5 tokens"), "{mask}");
    let superfluous = with(Extras { gates: gates(5), ..Extras::default() });
    assert!(superfluous.contains("gates are given"), "{superfluous}");
    let linear = LinearConfig::new(16, 8).init(&DEVICE);
    let widths = panics(|| HydraLinear::new(linear, case.module(&DEVICE)));
    assert!(widths.contains("16 x 8") && widths.contains("16 x 12"), "{widths}");

    let given = Case::new("given", Config { router: Router::GivenWeights, ..config }, 5);
    let given = given.with_gates(GateRows::Token).module(&DEVICE);
    assert!(panics(|| given.forward(x())).contains("not given"));
    let rows = panics(|| given.forward_with(x(), Extras { gates: gates(2), ..Extras::default() }));
    assert!(rows.contains("[2, 3]"), "{rows}");
    assert!(panics(|| given.gates(x())).contains("given"));
    assert_eq!(values(module.forward(x())).len(), 5 * 12, "burn goes on");
}

/// Of x and of everything beside it, with and without kernels.
#[test]
fn other_devices_are_named() {
    let (here, there) = (&*DEVICE, &Device::flex());
    let config = Config { d_in: 16, d_out: 12, rank: 4, experts: 3, ..Config::DEFAULT };
    let plain = Case::new("plain", config, 5);
    let given = Case::new("given", Config { router: Router::GivenWeights, ..config }, 5);
    for (here, there) in [(here, there), (there, here)] {
        let (plain, given) = (plain.module(here), given.module(here));
        let x = |device| random(5, 16, 1, device);
        let base = Extras { base: Some(random(5, 12, 1, there)), ..Extras::default() };
        let mask = Extras { mask: Some(Tensor::ones([5], there)), ..Extras::default() };
        let gates = Extras { gates: Some(random(5, 3, 1, there)), ..Extras::default() };
        let refusals = [
            ("the module", panics(|| plain.forward(x(there)))),
            ("the module", panics(|| plain.gates(x(there)))),
            ("the base", panics(|| plain.forward_with(x(here), base.clone()))),
            ("the base", panics(|| plain.formula(x(here), base))),
            ("the mask", panics(|| plain.forward_with(x(here), mask))),
            ("the tensor of gates", panics(|| given.forward_with(x(here), gates))),
        ];
        for (name, refusal) in refusals {
            let starts = format!("HydraLora: {name} is on ");
            let names_both = refusal.contains("Flex") && refusal.contains("Wgpu");
            assert!(refusal.starts_with(&starts) && names_both, "{refusal}");
            assert!(refusal.ends_with("move one of them"), "{refusal}");
        }
        assert_eq!(values(plain.forward(x(here))).len(), 5 * 12, "burn goes on");
    }
}

#[test]
fn invalid_configurations_are_typed_errors() {
    let config = HydraLoraConfig::new(16, 12, 4);
    let refused = |config: &HydraLoraConfig| config.try_init(&DEVICE).expect_err("it is refused");
    assert!(matches!(refused(&HydraLoraConfig::new(0, 12, 4)), Error::Layer(_)));
    assert!(matches!(refused(&config.clone().with_scaling(f32::NAN)), Error::Layer(_)));
    let top = Weighting::TopK { k: 3, renormalise: true };
    assert!(matches!(refused(&config.clone().with_experts(2).with_weighting(top)), Error::Layer(_)));
    let huge = HydraLoraConfig::new(1 << 40, 1 << 40, 1 << 40);
    assert!(matches!(refused(&huge), Error::Layer(_)));
    assert!(panics(|| HydraLoraConfig::new(16, 0, 4).init(&DEVICE)).contains("d_out is 0"));
}

/// A wgpu device of the application's own, with these features at least refused.
fn own_setup(without: wgpu::Features) -> WgpuSetup {
    let instance = device::instance_from_env();
    let options = wgpu::RequestAdapterOptions::default();
    let adapter = pollster::block_on(instance.request_adapter(&options)).expect("an adapter");
    let all = adapter.features() - wgpu::Features::MAPPABLE_PRIMARY_BUFFERS - without;
    let descriptor = wgpu::DeviceDescriptor {
        required_features: all - wgpu::Features::all_experimental_mask(),
        required_limits: adapter.limits(),
        ..Default::default()
    };
    let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).expect("a device");
    let backend = adapter.get_info().backend;
    WgpuSetup { instance, adapter, device, queue, backend }
}

#[test]
fn an_applications_own_device_is_registered() {
    let setup = own_setup(wgpu::Features::empty());
    let device = Device::wgpu_options().setup(setup.clone()).init().expect("burn takes it");
    let config = HydraLoraConfig::new(16, 12, 4).with_experts(2);
    let unknown = config.try_init(&device).expect_err("it is not registered");
    assert!(
        matches!(unknown, Error::Unregistered { .. }) && unknown.to_string().contains("register"),
        "{unknown}"
    );
    register(&device, &setup).expect("it has what burn needs");
    let config = Config { d_in: 16, d_out: 12, rank: 4, experts: 2, ..Config::DEFAULT };
    let case = Case::new("own", config, 5);
    let ours = case.run(crate::common::By::Module, &device);
    ours.assert_close(&case.run(crate::common::By::Module, &DEVICE), 2e-5, "own");

    assert!(matches!(register(&Device::flex(), &setup), Err(Error::NotWgpu { .. })));
}

#[test]
fn missing_features_are_named() {
    let setup = own_setup(wgpu::Features::SHADER_INT64 | wgpu::Features::TIMESTAMP_QUERY);
    let device = Device::wgpu_options().setup(setup.clone()).init().expect("burn takes it");
    let missing = register(&device, &setup).expect_err("burn's kernels would fail").to_string();
    assert!(missing.contains("SHADER_INT64") && missing.contains("TIMESTAMP_QUERY"), "{missing}");
}

#[test]
fn what_the_device_cannot_hold_is_said_before_burn_queues_it() {
    let config = Config { d_in: 4, d_out: 1 << 20, rank: 1, experts: 1, ..Config::DEFAULT };
    let module = Case::new("wide", config, 1).module(&DEVICE);
    // y would have 32 GiB; x is one row that is read again and again.
    let x = random(1, 4, 1, &DEVICE).expand([8192, 4]);
    let refused = panics(|| module.forward(x));
    assert!(refused.contains("needs 8589934592") && refused.contains("fewer tokens"), "{refused}");
    assert_eq!(values(module.forward(random(1, 4, 1, &DEVICE))).len(), 1 << 20, "burn goes on");
}

/// On a device of its own, which the others do not need.
#[test]
fn a_lost_device_is_an_error_that_says_so() {
    let setup = own_setup(wgpu::Features::empty());
    let device = Device::wgpu_options().setup(setup.clone()).init().expect("burn takes it");
    register(&device, &setup).expect("it has what burn needs");
    let config = Config { d_in: 16, d_out: 12, rank: 4, experts: 2, ..Config::DEFAULT };
    let module = Case::new("lost", config, 5).module(&device);
    let x = random(5, 16, 1, &device);
    assert_eq!(values(module.forward(x.clone())).len(), 60);
    setup.device.destroy();
    // With fusion burn runs it when it is read, and without when it is called.
    let lost =
        panics(|| module.forward(x).try_into_vec_as::<f32>().unwrap_or_else(|lost| panic!("{lost:?}")));
    assert!(lost.contains("hydralora: ") && lost.contains("the device was lost or destroyed"), "{lost}");
    let others = Case::new("others", config, 5).module(&DEVICE);
    assert_eq!(values(others.forward(random(5, 16, 1, &DEVICE))).len(), 60, "other devices go on");
}
