//! Every option: the kernels against the library's float64 twin and against burn's autodiff of the formula.

use burn::tensor::{DType, Device, Tensor};
use burn_hydralora::Extras;
use burn_hydralora::hydralora::twin::{self, Approx};
use burn_hydralora::hydralora::{Adapter, Config, Dropout, DropoutOf, GateRows, Router};

use crate::common::{By, Case, DEVICE, Results, assert_close, cases, matrix, values};

#[test]
fn kernels_agree_with_the_twin() {
    for case in cases() {
        assert_within(&case, &case.run(By::Module, &DEVICE), None);
    }
}

#[test]
fn kernels_agree_with_burns_autodiff_of_the_formula() {
    for case in cases() {
        let formula = case.run(By::Formula, &DEVICE);
        case.run(By::Module, &DEVICE).assert_close(&formula, 2e-5, &case.name);
    }
}

/// Other devices get the formula, from the same module.
#[test]
fn another_device_gives_the_same() {
    assert!(!burn_hydralora::is_registered(&Device::flex()));
    for case in cases() {
        let other = case.run(By::Module, &Device::flex());
        case.run(By::Module, &DEVICE).assert_close(&other, 2e-5, &case.name);
    }
}

#[test]
fn dropout_is_the_librarys() {
    for of in [DropoutOf::Input, DropoutOf::Latent] {
        for mut case in cases().into_iter().take(3) {
            case.config.dropout = Some(Dropout { of, stream: 3, ..Dropout::new(0.25) });
            let random = twin::Random { seed: 0, step: 0 };
            assert_within(&case, &case.run(By::Module, &DEVICE), Some(random));
        }
    }
}

/// A latent router sees what dropout has left of x, with the kernels and in the formula, which drops other elements.
#[test]
fn a_latent_router_reads_what_is_left() {
    let (tokens, columns) = (8192, 64);
    let config = Config {
        d_in: columns as u32,
        d_out: 8,
        rank: 2,
        experts: 2,
        router: Router::Latent,
        temperature: 0.02,
        dropout: Some(Dropout::new(0.5)),
        ..Config::DEFAULT
    };
    let case = Case::new("latent", config, 1);
    // All tokens are the same one, so that their mean is over what is dropped.
    let x = |device: &Device| matrix(&case.x, columns, device).repeat_dim(0, tokens);
    let mean = |y: Tensor<2>| values(y.mean_dim(0));
    let device = DEVICE.clone().autodiff();
    let module = case.module(&device);
    let ours = mean(module.forward(x(&device)));
    let theirs = mean(module.formula(x(&device), Extras::default()));
    assert_close(&ours, &theirs, 0.1, "the mean of y");
    // Without dropout h has the same mean, and the router another answer.
    let whole = mean(case.module(&DEVICE).forward(x(&DEVICE)));
    let largest = ours.iter().fold(0.0f32, |largest, y| largest.max(y.abs()));
    let apart = whole.iter().zip(&ours).fold(0.0f32, |apart, (a, b)| apart.max((a - b).abs()));
    assert!(apart > 0.3 * largest, "nothing depends on what the router reads: {apart} of {largest}");
}

#[test]
fn half_activations_keep_f32_parameters() {
    for case in cases().into_iter().filter(|case| case.mask.is_none()) {
        let whole = case.run(By::Module, &DEVICE);
        for (by, device) in [(By::Module, &*DEVICE), (By::Formula, &*DEVICE), (By::Module, &Device::flex())] {
            let half = case.run_as(by, device, DType::F16);
            // Inputs and results are rounded to 11 bits.
            half.assert_close(&whole, 6e-3, &format!("{}, {by:?} on {device:?}", case.name));
        }
    }
}

/// Holds what a module gave to the twin's values and bounds.
fn assert_within(case: &Case, results: &Results, random: Option<twin::Random>) {
    let Case { config, adapter, .. } = case;
    let exact =
        |values: &[f32]| values.iter().map(|&value| Approx::exact(f64::from(value))).collect::<Vec<_>>();
    let adapter = Adapter {
        a: exact(&adapter.a),
        router: exact(&adapter.router),
        router_bias: exact(&adapter.router_bias),
        b: adapter.b.iter().map(|b| exact(b)).collect(),
    };
    let (x, g) = (exact(&case.x), exact(&case.g));
    let experts = config.experts as usize;
    let gates =
        case.gates.as_ref().map(|(gates, rows)| of_tokens(&exact(gates), experts, *rows, case.tokens));
    let extras = twin::Extras {
        gates: gates.as_deref(),
        mask: case.mask.as_deref(),
        random,
        ..twin::Extras::default()
    };
    let base = case.base.as_deref().map(exact);
    let output = twin::forward(config, &adapter, &x, &extras, base.as_deref());
    let input = twin::backward_input(config, &adapter, &output.h, &output.w, &g, &extras, None);
    let activations =
        twin::Activations { x: &x, g: &g, h: &output.h, w: &output.w, dh: &input.dh, dl: &input.dl };
    let gradients = twin::backward_params(config, &activations, &extras);
    let packed = case.layout().pack(&gradients).expect("gradients");
    assert_bound(&output.y, &results.y, &format!("{}: y", case.name));
    assert_bound(&input.dx, &results.dx, &format!("{}: dx", case.name));
    assert_bound(&packed, &results.gradients, &format!("{}: gradients", case.name));
    if case.base.is_some() {
        assert_eq!(results.base, case.g, "{}: the gradient of the base is g", case.name);
    }
    if let Some((_, GateRows::Token)) = case.gates {
        assert_bound(&input.dl, &results.gates, &format!("{}: gradient of the gates", case.name));
    }
}

/// A row of gates for each token.
fn of_tokens(gates: &[Approx], experts: usize, rows: GateRows, tokens: usize) -> Vec<Approx> {
    let count = rows.count(tokens as u32) as usize;
    let row = |token: usize| token * count / tokens;
    (0..tokens).flat_map(|token| gates[row(token) * experts..][..experts].to_vec()).collect()
}

fn assert_bound(twin: &[Approx], results: &[f32], name: &str) {
    assert_eq!(twin.len(), results.len(), "{name}");
    for (at, (twin, &result)) in twin.iter().zip(results).enumerate() {
        let error = (f64::from(result) - twin.value).abs();
        assert!(error <= twin.bound, "{name}[{at}] is {result}, not {} within {}", twin.value, twin.bound);
    }
}
