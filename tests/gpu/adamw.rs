//! AdamW against its twin over many steps.

use hydralora::twin::{self, Approx, Moments};
use hydralora::{AdamW, AdamWDescriptor, AdamWHyper};

use crate::support::{GPU, Guarded, KERNELS, Ratios, random};

const STEPS: u32 = 50;

/// Fifty steps with new gradients and another learning rate at each.
fn check(elements: usize, hyper: AdamWHyper, gradient_scale: f32, ratios: &mut Ratios) {
    let start = random(1, elements);
    let parameters = Guarded::new("parameters", &start);
    let moments = Guarded::new("moments", &vec![0.0; 2 * elements]);
    let mut expected = twin::exact(&start);
    let zero = vec![Approx::default(); elements];
    let mut expected_moments = Moments { first: zero.clone(), second: zero };
    for step in 1..=STEPS {
        let gradient_data: Vec<f32> =
            random(100 + u64::from(step), elements).iter().map(|g| g * gradient_scale).collect();
        let gradients = Guarded::new("gradients", &gradient_data);
        let adamw = AdamW::prepare(
            &KERNELS,
            &AdamWDescriptor {
                elements,
                parameters: parameters.tensor(),
                gradients: gradients.tensor(),
                moments: moments.tensor(),
                hyper,
            },
        )
        .expect("preparing adamw");
        let learning_rate = 0.01 / step as f32;
        adamw.set_step(&GPU.queue, step, learning_rate);
        GPU.submit(|pass| adamw.encode(pass));
        let gradients = twin::exact(&gradient_data);
        twin::adamw(&hyper, step, learning_rate, &mut expected, &gradients, &mut expected_moments);
        ratios.compare(&format!("parameters at step {step}"), &parameters.read(), &expected);
    }
    let expected_moments = [expected_moments.first, expected_moments.second].concat();
    ratios.compare("moments", &moments.read(), &expected_moments);
}

#[test]
fn without_clipping() {
    let mut ratios = Ratios::default();
    check(4, AdamWHyper::default(), 1.0, &mut ratios);
    check(1284, AdamWHyper { weight_decay: 0.0, beta1: 0.8, ..AdamWHyper::default() }, 1e-3, &mut ratios);
    ratios.report("adamw::without_clipping");
}

#[test]
fn with_clipping() {
    let mut ratios = Ratios::default();
    let hyper = AdamWHyper { max_norm: Some(1.0), ..AdamWHyper::default() };
    check(260, hyper, 1.0, &mut ratios);
    check(260, hyper, 1e-3, &mut ratios);
    // More than one round of the norm's strided sum.
    check(4 * 64 * 64 + 12, hyper, 0.1, &mut ratios);
    ratios.report("adamw::with_clipping");
}
