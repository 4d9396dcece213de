//! Checks of the twin's gradients against central differences of its own forward. A random cotangent
//! contracts them, because a constant one would miss everything that softmax cancels. No device is needed.

use hydralora::twin::{self, Approx};
use hydralora::{Adapter, Config, Router};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

const TOKENS: usize = 5;

/// Step of the differences. Their error is about STEP^2, and their rounding error about 1e-16 / STEP.
const STEP: f64 = 1e-5;

/// Allowed difference, relative to 1 + |derivative|.
const TOLERANCE: f64 = 1e-8;

fn random(rng: &mut StdRng, len: usize) -> Vec<Approx> {
    (0..len).map(|_| Approx::exact(rng.random_range(-1.0..1.0))).collect()
}

fn values(approximations: &[Approx]) -> impl Iterator<Item = f64> + '_ {
    approximations.iter().map(|a| a.value)
}

/// The inner product of y with the cotangent.
fn loss(config: &Config, parameters: &Adapter<Approx>, x: &[Approx], g: &[Approx]) -> f64 {
    let output = twin::forward(config, parameters, x, None, None);
    values(&output.y).zip(values(g)).map(|(y, g)| y * g).sum()
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

fn check_config(config: &Config, seed: u64) {
    let [d_in, d_out, rank, experts] =
        [config.d_in, config.d_out, config.rank, config.experts].map(|n| n as usize);
    let rng = &mut StdRng::seed_from_u64(seed);
    let router_columns = if config.router == Router::Input { d_in } else { rank };
    let parameters = Adapter {
        a: random(rng, rank * d_in),
        router: random(rng, experts * router_columns),
        b: (0..experts).map(|_| random(rng, d_out * rank)).collect(),
    };
    let (x, g) = (random(rng, TOKENS * d_in), random(rng, TOKENS * d_out));
    let twin::Output { h, w, .. } = twin::forward(config, &parameters, &x, None, None);
    let input = twin::backward_input(config, &parameters, &h, &w, &g, None);
    let activations = twin::Activations { x: &x, g: &g, h: &h, w: &w, dh: &input.dh, dl: &input.dl };
    let gradients = twin::backward_params(config, &activations);

    check("dx", &x, &input.dx, |x| x, |x| loss(config, &parameters, x, &g));
    let of_parameters = |parameters: &Adapter<Approx>| loss(config, parameters, &x, &g);
    check("dA", &parameters, &gradients.a, |p| &mut p.a, of_parameters);
    if experts > 1 {
        check("dW_g", &parameters, &gradients.router, |p| &mut p.router, of_parameters);
    }
    for (i, db) in gradients.b.iter().enumerate() {
        check(&format!("dB_{i}"), &parameters, db, |p| &mut p.b[i], of_parameters);
    }
}

#[test]
fn gradients_match_differences() {
    for router in [Router::Input, Router::Latent] {
        for (seed, [d_in, d_out, rank, experts]) in (0..).zip([[7, 6, 3, 4], [4, 9, 2, 2], [5, 5, 1, 1]]) {
            check_config(
                &Config { d_in, d_out, rank, experts, scaling: 1.7, router, ..Default::default() },
                seed,
            );
        }
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
