//! Checks of the twin's gradients against central differences of its own forward. A random cotangent
//! contracts them, because a constant one would miss everything that softmax cancels. No device is needed.

use hydralora::twin::{self, Approx, Extras};
use hydralora::{Adapter, Config, GateGradient, GateRows, Router, Sharing, Weighting};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const TOKENS: usize = 5;

/// Step of the differences. Their error is about STEP^2, and their rounding error about 1e-16 / STEP.
const STEP: f64 = 1e-5;

/// Allowed difference, relative to 1 + |derivative|.
const TOLERANCE: f64 = 1e-8;

/// The factor of the z-loss's gradient: twice that of the squares in the loss.
const Z_FACTOR: Approx = Approx { value: 0.7, bound: 0.0 };

fn random(rng: &mut StdRng, len: usize) -> Vec<Approx> {
    (0..len).map(|_| Approx::exact(rng.random_range(-1.0..1.0))).collect()
}

fn values(approximations: &[Approx]) -> impl Iterator<Item = f64> + '_ {
    approximations.iter().map(|a| a.value)
}

/// Everything that the loss depends on.
#[derive(Clone)]
struct State {
    x: Vec<Approx>,
    parameters: Adapter<Approx>,
    gates: Vec<Approx>,
}

impl State {
    fn forward(&self, config: &Config) -> twin::Output {
        let extras = Extras { gates: Some(&self.gates), ..Extras::default() };
        twin::forward(config, &self.parameters, &self.x, &extras, None)
    }

    /// The inner product of y with its cotangent, and of the weights or logits with theirs.
    fn loss(&self, config: &Config, g: &[Approx], of_gate: Option<(GateGradient, &[Approx])>) -> f64 {
        let output = self.forward(config);
        let dot = |a: &[Approx], b: &[Approx]| -> f64 { values(a).zip(values(b)).map(|(a, b)| a * b).sum() };
        let of_gate = of_gate.map_or(0.0, |(of, gradient)| match of {
            GateGradient::Weights(_) => {
                // Rows of the weights may be one longer, and those with a minus were not chosen.
                let experts = config.experts as usize;
                let chooses = matches!(config.weighting, Weighting::TopK { .. });
                let counted = |w: &Approx| if chooses { Approx::exact(w.value.max(0.0)) } else { *w };
                let rows = output.w.chunks(output.w.len() / TOKENS).flat_map(|row| &row[..experts]);
                dot(&rows.map(counted).collect::<Vec<_>>(), gradient)
            }
            GateGradient::Logits(_) => dot(&output.logits, gradient),
            GateGradient::Losses => {
                let experts = config.experts as usize;
                let rows = || output.w.chunks(output.w.len() / TOKENS);
                let weights: Vec<Approx> =
                    rows().flat_map(|row| before_choice(config, &row[..experts])).collect();
                let squares: f64 = rows().map(|row| row[experts].value.powi(2)).sum();
                dot(&weights, gradient) + 0.5 * Z_FACTOR.value * squares
            }
        });
        dot(&output.y, g) + of_gate
    }
}

/// A token's softmax, of which those with a minus were not chosen, and the others may be divided by their sum.
fn before_choice(config: &Config, row: &[Approx]) -> Vec<Approx> {
    let others: f64 = values(row).filter(|w| *w < 0.0).map(|w| -w).sum();
    let of_chosen =
        if let Weighting::TopK { renormalise: true, .. } = config.weighting { 1.0 - others } else { 1.0 };
    values(row).map(|w| Approx::exact(if w < 0.0 { -w } else { w * of_chosen })).collect()
}

/// Checks `gradient` against differences of `loss`, for each element of the array that `pick` finds.
fn check<S: Clone>(
    name: &str,
    state: &S,
    gradient: &[Approx],
    pick: impl Fn(&mut S) -> &mut Vec<Approx>,
    loss: impl Fn(&S) -> f64,
) {
    assert!(!gradient.is_empty(), "{name}: nothing to check");
    let mut largest = 0.0f64;
    for (at, expected) in gradient.iter().enumerate() {
        let at_distance = |distance: f64| {
            let mut state = state.clone();
            pick(&mut state)[at].value += distance;
            loss(&state)
        };
        let difference = (at_distance(STEP) - at_distance(-STEP)) / (2.0 * STEP);
        let apart = (difference - expected.value).abs();
        assert!(
            apart <= TOLERANCE * (1.0 + expected.value.abs()),
            "{name}[{at}]: differences give {difference}, the twin {}",
            expected.value
        );
        largest = largest.max(expected.value.abs());
    }
    assert!(largest > 1e-3, "{name}: every gradient is about zero, so the check says nothing");
}

fn check_config(config: &Config, seed: u64, of_gate: Option<GateGradient>) {
    let [d_in, d_out, experts] = [config.d_in, config.d_out, config.experts].map(|n| n as usize);
    let rng = &mut StdRng::seed_from_u64(seed);
    let layout = config.layout().expect("a valid configuration");
    let parameters = layout.unpack(&random(rng, layout.len())).expect("as many elements as it has");
    let [x, g, gates, added] = [d_in, d_out, experts, experts].map(|width| random(rng, TOKENS * width));
    let state = State { x, parameters, gates };
    let gate_gradient = of_gate.map(|of| (of, added.as_slice()));
    let twin::Output { h, w, .. } = state.forward(config);
    let z_factor = (of_gate == Some(GateGradient::Losses)).then_some(Z_FACTOR);
    let extras = Extras { gate_gradient, z_factor, ..Extras::default() };
    let input = twin::backward_input(config, &state.parameters, &h, &w, &g, &extras, None);
    let activations = twin::Activations { x: &state.x, g: &g, h: &h, w: &w, dh: &input.dh, dl: &input.dl };
    let gradients = twin::backward_params(config, &activations, &extras);

    let loss = |state: &State| state.loss(config, &g, gate_gradient);
    check("dx", &state, &input.dx, |state| &mut state.x, loss);
    check("dA", &state, &gradients.a, |state| &mut state.parameters.a, loss);
    let has_router = !state.parameters.router.is_empty();
    if has_router {
        check("dW_g", &state, &gradients.router, |state| &mut state.parameters.router, loss);
    } else if let Router::GivenWeights | Router::GivenLogits = config.router {
        check("the gates' gradient", &state, &input.dl, |state| &mut state.gates, loss);
    }
    if config.router_bias {
        check("the bias's", &state, &gradients.router_bias, |state| &mut state.parameters.router_bias, loss);
    }
    for (i, db) in gradients.b.iter().enumerate() {
        check(&format!("dB_{i}"), &state, db, |state| &mut state.parameters.b[i], loss);
    }
}

#[test]
fn gradients_match_differences() {
    let shapes = [[7, 6, 3, 4], [4, 9, 2, 2], [5, 5, 1, 1]];
    let layer = |[d_in, d_out, rank, experts]: [u32; 4]| Config {
        d_in,
        d_out,
        rank,
        experts,
        scaling: 1.7,
        ..Config::DEFAULT
    };
    for router in [Router::Input, Router::Latent] {
        for (seed, shape) in (0..).zip(shapes) {
            check_config(&Config { router, ..layer(shape) }, seed, None);
        }
    }
    let config = layer(shapes[0]);
    let [sigmoid, normalised] = [Weighting::Sigmoid, Weighting::NormalisedSigmoid];
    let (latent, a) = (Router::Latent, Sharing::Separate);
    let top = |renormalise| Weighting::TopK { k: 2, renormalise };
    let losses = Some(GateGradient::Losses);
    let of_gate = [GateGradient::Weights(GateRows::Token), GateGradient::Logits(GateRows::Token)].map(Some);
    for (config, of_gate) in [
        (Config { a, ..config }, None),
        (Config { router_bias: true, temperature: 0.6, ..config }, None),
        (Config { router: latent, router_bias: true, weighting: sigmoid, ..config }, of_gate[1]),
        (Config { weighting: top(true), ..config }, of_gate[0]),
        (Config { weighting: Weighting::TopK { k: 3, renormalise: false }, ..config }, of_gate[1]),
        (Config { logsumexp: true, temperature: 0.6, ..config }, losses),
        (Config { logsumexp: true, router: latent, weighting: top(false), ..config }, losses),
        (Config { logsumexp: true, weighting: top(true), ..config }, losses),
        (Config { weighting: sigmoid, temperature: 1.5, ..config }, of_gate[0]),
        (Config { weighting: normalised, temperature: 1.5, ..config }, of_gate[0]),
        (Config { weighting: normalised, router: latent, ..config }, of_gate[1]),
        (Config { weighting: sigmoid, experts: 1, ..config }, None),
        (Config { router: Router::GivenWeights, ..config }, of_gate[0]),
        (Config { router: Router::GivenLogits, temperature: 2.0, ..config }, of_gate[1]),
    ] {
        check_config(&config, 5, of_gate);
    }
}

#[test]
fn frozen_layer_backward_matches_differences() {
    let rng = &mut StdRng::seed_from_u64(3);
    let dimensions @ [d_in, d_out] = [6, 5];
    let (weight, bias) = (random(rng, d_in * d_out), random(rng, d_out));
    let (x, g) = (random(rng, TOKENS * d_in), random(rng, TOKENS * d_out));
    let dx = twin::linear_backward(dimensions, &weight, &g, None);
    check(
        "dx",
        &x,
        &dx,
        |x| x,
        |x| {
            let y = twin::linear(dimensions, &weight, Some(&bias), x, None);
            values(&y).zip(values(&g)).map(|(y, g)| y * g).sum()
        },
    );
}

#[test]
fn bounds_hold_for_f32_sums_and_are_not_slack() {
    // The same sum in f32, one term after the other. Its error is within the bound, and not far below it.
    let rng = &mut StdRng::seed_from_u64(4);
    let mut worst = 0.0f64;
    for n in [1usize, 2, 3, 4, 10, 100, 1000] {
        for _ in 0..200 {
            let a: Vec<f32> = (0..n).map(|_| rng.random_range(0.5..1.0)).collect();
            let b: Vec<f32> = (0..n).map(|_| rng.random_range(0.5..1.0)).collect();
            let in_f32: f32 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
            let expected = twin::linear([n, 1], &twin::exact(&a), None, &twin::exact(&b), None)[0];
            worst = worst.max((f64::from(in_f32) - expected.value).abs() / expected.bound);
        }
    }
    assert!((0.1..=1.0).contains(&worst), "worst error / bound is {worst}");
}
