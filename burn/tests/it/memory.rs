//! burn's memory: its default pools, views, threads with streams of their own, and writing in place.

use burn::tensor::{DType, Device, Tensor, TensorData, bf16};
use burn_hydralora::hydralora::{Config, Router, Sharing};
use burn_hydralora::{Extras, HydraLora};

use crate::common::{By, Case, DEVICE, assert_close, in_own_process, matrix, random, values};

fn square(tokens: usize) -> Case {
    let config = Config { d_in: 64, d_out: 64, rank: 4, experts: 3, scaling: 0.5, ..Config::DEFAULT };
    Case::new("square", config, tokens)
}

/// By the module and by burn's own operations.
fn both(module: &HydraLora, x: &Tensor<2>) -> [Tensor<2>; 2] {
    [module.forward(x.clone()), module.formula(x.clone(), Extras::default())]
}

/// A chain of layers by each, and on an autodiff device its gradients to x and to the parameters. Nothing is read before
/// all is queued.
fn chains(module: &HydraLora, x: &Tensor<2>, layers: u64) -> [Vec<Vec<f32>>; 2] {
    let device = x.device();
    let trains = device.is_autodiff();
    let starts = [(); 2].map(|()| if trains { x.clone().detach().require_grad() } else { x.clone() });
    let [mut ours, mut theirs] = starts.clone();
    for layer in 0..layers {
        // Memory that was handed out, given back, and handed out again.
        let passing = random(8, 64, layer, &device);
        let noise = (passing.clone() - passing).narrow(0, 0, 1);
        let [added, _] = both(module, &ours);
        let [_, expected] = both(module, &theirs);
        (ours, theirs) = ((ours + added).tanh() + noise.clone(), (theirs + expected).tanh() + noise);
    }
    let gradients = [&ours, &theirs].map(|y| trains.then(|| y.clone().powf_scalar(2.0).sum().backward()));
    let results = [(ours, &starts[0], &gradients[0]), (theirs, &starts[1], &gradients[1])];
    results.map(|(y, x, gradients)| {
        let mut results = vec![values(y)];
        if let Some(gradients) = gradients {
            results.push(values(x.grad(gradients).expect("dx")));
            results.push(values(module.parameters.val().grad(gradients).expect("the parameters' gradient")));
        }
        results
    })
}

fn assert_chains_agree([ours, theirs]: &[Vec<Vec<f32>>; 2], name: &str) {
    for (what, (ours, theirs)) in ["y", "dx", "gradients"].iter().zip(ours.iter().zip(theirs)) {
        assert_close(ours, theirs, 1e-4, &format!("{name}: {what}"));
    }
}

#[test]
fn order_is_kept_between_kernels_that_are_not_submitted_yet() {
    for (device, layers) in [(DEVICE.clone(), 60), (DEVICE.clone().autodiff(), 20)] {
        let module = square(40).module(&device);
        let chains = chains(&module, &random(40, 64, 3, &device), layers);
        assert_chains_agree(&chains, &format!("{layers} layers in a chain"));
    }
}

#[test]
fn threads_have_streams_of_their_own() {
    for device in [DEVICE.clone(), DEVICE.clone().autodiff()] {
        let module = square(40).module(&device);
        let shared = random(40, 64, 5, &device) * 0.5;
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (module, shared) = (&module, shared.clone());
                scope.spawn(move || {
                    // Numbers of another stream, and other numbers of tokens in each.
                    let tokens = 10 * (thread + 1);
                    let x = shared.narrow(0, 0, tokens) + 0.1 * thread as f32;
                    assert_chains_agree(&chains(module, &x, 10), &format!("thread {thread}"));
                });
            }
        });
    }
}

#[test]
fn views_are_read_as_they_look() {
    let case = square(40);
    let module = case.module(&DEVICE);
    let wide = random(64, 128, 1, &DEVICE);
    let views = [
        ("transposed", wide.clone().narrow(1, 0, 40).transpose()),
        ("some columns", wide.clone().narrow(1, 32, 64)),
        ("some rows", random(50, 64, 2, &DEVICE).narrow(0, 7, 40)),
        ("one row, many times", random(1, 64, 2, &DEVICE).expand([40, 64])),
    ];
    for (name, x) in views {
        let [ours, theirs] = both(&module, &x).map(values);
        assert_close(&ours, &theirs, 2e-5, name);
        // And as what the output is added to.
        let extras = Extras { base: Some(x.clone()), ..Extras::default() };
        let y = random(x.dims()[0], 64, 4, &DEVICE);
        let ours = values(module.forward_add(x.clone(), y.clone()));
        assert_close(&ours, &values(module.formula(y, extras)), 2e-5, &format!("{name}, as a base"));
    }
}

#[test]
fn any_number_of_axes_and_of_tokens() {
    let case = square(6);
    let module = case.module(&DEVICE);
    let x = random(6, 64, 1, &DEVICE);
    let flat = values(module.forward(x.clone()));
    let folded = module.forward(x.clone().reshape([3, 2, 64]));
    assert_eq!(folded.dims(), [3, 2, 64]);
    assert_eq!(values(folded), flat, "the same tokens in another shape");
    let one: Tensor<1> = x.narrow(0, 0, 1).squeeze_dim(0);
    assert_close(&values(module.forward(one)), &flat[..64], 2e-5, "a token by itself");
    let none = module.forward(Tensor::<3>::zeros([2, 0, 64], &*DEVICE));
    assert_eq!(none.dims(), [2, 0, 64]);
    let training = DEVICE.clone().autodiff();
    let none = case.module(&training).forward(Tensor::<2>::zeros([0, 64], &training));
    assert_eq!(none.dims(), [0, 64]);
    let config = Config { router: Router::GivenWeights, ..case.config };
    let given = Case::new("given", config, 0).module(&DEVICE);
    let gates = Some(Tensor::zeros([0, 3], &*DEVICE));
    let none =
        given.forward_with(Tensor::<2>::zeros([0, 64], &*DEVICE), Extras { gates, ..Extras::default() });
    assert_eq!(none.dims(), [0, 64]);
}

/// Pools let no two tensors of a dispatch share bytes, and here x is its own gates.
#[test]
fn one_tensor_may_be_x_and_gates() {
    let config =
        Config { d_in: 8, d_out: 16, rank: 4, experts: 8, router: Router::GivenWeights, ..Config::DEFAULT };
    let module = Case::new("own gates", config, 40).module(&DEVICE);
    let x = random(40, 8, 1, &DEVICE);
    let extras = || Extras { gates: Some(x.clone()), ..Extras::default() };
    let ours = values(module.forward_with(x.clone(), extras()));
    assert_close(&ours, &values(module.formula(x.clone(), extras())), 2e-5, "x as gates");
}

/// The gradient of y is a multiple of x.
#[test]
fn one_tensor_may_come_twice() {
    let case = square(40);
    let device = DEVICE.clone().autodiff();
    let module = case.module(&device);
    let x = random(40, 64, 1, &device);
    let gradients = [By::Module, By::Formula].map(|by| {
        let y = match by {
            By::Module => module.forward(x.clone()),
            By::Formula => module.formula(x.clone(), Extras::default()),
        };
        let gradients = (y * x.clone()).sum().backward();
        values(module.parameters.val().grad(&gradients).expect("a gradient"))
    });
    assert_close(&gradients[0], &gradients[1], 2e-5, "x as x and as g");
}

fn in_use(device: &Device) -> u64 {
    device.sync().expect("a device");
    device.memory_pool_usage().expect("pools").bytes_in_use
}

/// What is added to lies where y does. In a process of its own, because others use the same pools.
#[test]
fn a_base_that_nobody_needs_is_written_in_place() {
    if !in_own_process("memory::a_base_that_nobody_needs_is_written_in_place") {
        return;
    }
    let (tokens, columns) = (1024, 1024);
    let config = Config { d_in: 16, d_out: columns as u32, rank: 4, a: Sharing::Shared, ..Config::DEFAULT };
    let bytes = 4 * (tokens * columns) as u64;
    for device in [DEVICE.clone(), DEVICE.clone().autodiff()] {
        let module = Case::new("wide", config, 4).module(&device);
        let (x, weight) = (random(tokens, 16, 1, &device), random(16, columns, 2, &device));
        // Pipelines, uniforms and what tuning takes are there afterwards.
        drop(module.forward_add(x.clone().matmul(weight.clone()), x.clone()));
        let before = in_use(&device);
        let y = module.forward_add(x.clone().matmul(weight.clone()), x.clone());
        let added = in_use(&device) - before;
        assert!(added >= bytes && added < bytes + bytes / 2, "{added} bytes for y of {bytes}");

        // One that is needed keeps its numbers.
        let base = x.clone().matmul(weight);
        let apart = module.forward_add(base.clone(), x.clone());
        assert_close(&values(apart), &values(y), 1e-6, "y beside its base");
        let kept = values(base.clone() + 0.0);
        assert_close(&kept, &values(x.matmul(random(16, columns, 2, &device))), 1e-6, "the base");
    }
}

#[test]
fn half_precision_of_odd_widths_is_computed_in_f32() {
    let config = Config { d_in: 33, d_out: 17, rank: 3, experts: 2, ..Config::DEFAULT };
    let case = Case::new("odd", config, 9);
    let half = case.run_as(By::Module, &DEVICE, DType::F16);
    half.assert_close(&case.run(By::Module, &DEVICE), 6e-3, "odd rows in f16");
}

/// burn compiles nothing for bf16 in WGSL, but it holds what it is given, and the kernels read and write it.
#[test]
fn bf16_goes_through_forward() {
    let case = square(9).with_base();
    let rounded = |values: &[f32]| values.iter().map(|&value| bf16::from_f32(value)).collect::<Vec<_>>();
    let half = |values: &[f32]| {
        let data = TensorData::new(rounded(values), [9, 64]);
        Tensor::<2>::from_data(data, (&*DEVICE, DType::BF16))
    };
    let full = |values: &[f32]| {
        matrix(&rounded(values).into_iter().map(bf16::to_f32).collect::<Vec<_>>(), 64, &DEVICE)
    };
    let module = case.module(&DEVICE);
    let base = case.base.as_deref().expect("a base");
    let y = module.forward_add(half(base), half(&case.x));
    assert_eq!(y.dtype(), DType::BF16);
    let expected = values(module.forward_add(full(base), full(&case.x)));
    let y = y.into_data().try_to_vec::<bf16>().expect("burn reads it");
    let y: Vec<_> = y.into_iter().map(bf16::to_f32).collect();
    // Results are rounded to 8 bits.
    assert_close(&y, &expected, 1.0 / 256.0, "y in bf16");
}
