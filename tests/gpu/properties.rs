//! What holds whatever the numbers are: equal bits, accumulation over micro-batches, plain LoRA,
//! tensors inside one large buffer, reuse of prepared operations, slices and splits, inference.

use hydralora::twin::{self, Approx};
use hydralora::{
    BackwardInput, BackwardInputDescriptor, Config, DeviceProfile, Forward, ForwardDescriptor, Kernels,
    Router, Tensor, WriteMode,
};

use crate::support::{Case, GPU, Guarded, KERNELS, Ratios, Step, config};

fn bits(step: &Step) -> Vec<u32> {
    [&step.y, &step.saved, &step.dx, &step.dstate, &step.gradients]
        .into_iter()
        .flatten()
        .map(|value| value.to_bits())
        .collect()
}

/// Kernels that plan for a wide device: output slices and token splits where a software driver
/// would have none.
fn wide() -> Kernels {
    Kernels::with_profile(
        &GPU.device,
        DeviceProfile { busy_workgroups: 64, ..DeviceProfile::of(&GPU.device) },
    )
}

#[test]
fn equal_inputs_give_equal_bits() {
    for router in [Router::Input, Router::Latent] {
        let case = Case::random(config([100, 77, 5, 3], router), 200, 11);
        for kernels in [&*KERNELS, &wide()] {
            let first = bits(&case.run(kernels, WriteMode::Overwrite));
            assert_eq!(first, bits(&case.run(kernels, WriteMode::Overwrite)));
        }
    }
}

#[test]
fn output_slices_and_token_splits() {
    let mut ratios = Ratios::default();
    let kernels = wide();
    for (router, write) in [(Router::Input, WriteMode::Overwrite), (Router::Latent, WriteMode::Accumulate)] {
        for (dimensions, tokens) in [([600, 700, 6, 3], 3), ([600, 700, 6, 3], 333), ([31, 9, 2, 5], 257)] {
            let case = Case::random(config(dimensions, router), tokens, 12);
            case.check(&case.run(&kernels, write), write, &mut ratios);
        }
    }
    ratios.report("properties::output_slices_and_token_splits");
}

#[test]
fn micro_batches_add_up() {
    let whole = Case::random(config([48, 40, 4, 3], Router::Input), 50, 13);
    let split = 21;
    let part = |tokens: std::ops::Range<usize>, gradients: &[f32]| Case {
        tokens: tokens.len(),
        x: whole.x[48 * tokens.start..48 * tokens.end].to_vec(),
        g: whole.g[40 * tokens.start..40 * tokens.end].to_vec(),
        y_before: whole.y_before[40 * tokens.start..40 * tokens.end].to_vec(),
        dx_before: whole.dx_before[48 * tokens.start..48 * tokens.end].to_vec(),
        gradients_before: gradients.to_vec(),
        ..whole.clone()
    };
    let first = part(0..split, &whole.gradients_before).run(&KERNELS, WriteMode::Accumulate);
    let mut second = part(split..50, &first.gradients).run(&KERNELS, WriteMode::Accumulate);
    second.y.splice(0..0, first.y);
    second.saved.splice(0..0, first.saved);
    second.dx.splice(0..0, first.dx);
    second.dstate.splice(0..0, first.dstate);
    let mut ratios = Ratios::default();
    whole.check(&second, WriteMode::Accumulate, &mut ratios);
    ratios.report("properties::micro_batches_add_up");
}

#[test]
fn one_expert_is_plain_lora() {
    let case = Case::random(config([36, 20, 6, 1], Router::Input), 25, 14);
    let step = case.run(&KERNELS, WriteMode::Overwrite);
    let (rank, d_in, d_out) = (6, 36, 20);
    // y = s B (A x), as two linear layers.
    let (a, b) = (twin::exact(&case.adapter.a), twin::exact(&case.adapter.b[0]));
    let h = twin::linear([d_in, rank], &a, None, &twin::exact(&case.x), None);
    let scaling = Approx::rounded(f64::from(case.config.scaling));
    let scaled: Vec<Approx> = h.iter().map(|&h| scaling * h).collect();
    let mut ratios = Ratios::default();
    ratios.compare("y", &step.y, &twin::linear([rank, d_out], &b, None, &scaled, None));
    ratios.report("properties::one_expert_is_plain_lora");
    for (token, state) in step.saved.chunks_exact(rank + 1).enumerate() {
        assert_eq!(state[rank], 1.0, "the only expert's weight at token {token}");
    }
    let gradients =
        case.config.layout().and_then(|layout| layout.unpack(&step.gradients)).expect("the layout");
    assert!(
        gradients.router.iter().all(|&gradient| gradient == 0.0),
        "a lone expert's router has no gradient"
    );
}

#[test]
fn inference_equals_training_and_prepared_operations_can_be_reused() {
    let case = Case::random(config([64, 72, 4, 2], Router::Input), 9, 15);
    let trained = case.run(&KERNELS, WriteMode::Overwrite);
    let parameters = case.config.layout().and_then(|layout| layout.pack(&case.adapter)).expect("the layout");
    let (x, parameters) = (Guarded::new("x", &case.x), Guarded::new("parameters", &parameters));
    let y = Guarded::poisoned("y", case.y_before.len());
    let forward = Forward::prepare(
        &KERNELS,
        &ForwardDescriptor {
            config: case.config,
            tokens: 9,
            x: x.tensor(),
            parameters: parameters.tensor(),
            y: y.tensor(),
            write: WriteMode::Overwrite,
            saved: None,
        },
    )
    .expect("preparing forward");
    for _ in 0..3 {
        GPU.submit(|pass| forward.encode(pass));
        assert_eq!(y.read(), trained.y);
    }
}

#[test]
fn the_first_layer_needs_no_dx() {
    let case = Case::random(config([24, 20, 4, 3], Router::Latent), 37, 20);
    let expected = case.run(&KERNELS, WriteMode::Overwrite);
    let parameters = case.config.layout().and_then(|layout| layout.pack(&case.adapter)).expect("the layout");
    let (g, parameters) = (Guarded::new("g", &case.g), Guarded::new("parameters", &parameters));
    let saved = Guarded::new("saved", &expected.saved);
    let dstate = Guarded::poisoned("dstate", expected.dstate.len());
    let backward = BackwardInput::prepare(
        &KERNELS,
        &BackwardInputDescriptor {
            config: case.config,
            tokens: 37,
            g: g.tensor(),
            parameters: parameters.tensor(),
            saved: saved.tensor(),
            dx: None,
            write: WriteMode::Overwrite,
            dstate: dstate.tensor(),
        },
    )
    .expect("preparing backward_input");
    GPU.submit(|pass| backward.encode(pass));
    assert_eq!(dstate.read(), expected.dstate);
}

#[test]
fn tensors_inside_one_allocation() {
    let case = Case::random(config([24, 20, 4, 2], Router::Input), 6, 16);
    let expected = case.run(&KERNELS, WriteMode::Overwrite).y;
    let parameters = case.config.layout().and_then(|layout| layout.pack(&case.adapter)).expect("the layout");
    // Everything that is read lies in one buffer, at offsets that every device accepts.
    let mut allocation = vec![f32::NAN; 64];
    let mut place = |data: &[f32]| {
        let offset = allocation.len();
        allocation.extend(data);
        allocation.resize(allocation.len().next_multiple_of(64) + 64, f32::NAN);
        (4 * offset as u64, 4 * data.len() as u64)
    };
    let (x, parameters) = (place(&case.x), place(&parameters));
    let allocation = GPU.upload("allocation", &allocation);
    let y = Guarded::poisoned("y", expected.len());
    let forward = Forward::prepare(
        &KERNELS,
        &ForwardDescriptor {
            config: case.config,
            tokens: 6,
            x: Tensor::new(&allocation, x.0, x.1),
            parameters: allocation.slice(parameters.0..parameters.0 + parameters.1).into(),
            y: y.tensor(),
            write: WriteMode::Overwrite,
            saved: None,
        },
    )
    .expect("preparing forward");
    GPU.submit(|pass| forward.encode(pass));
    assert_eq!(y.read(), expected);
}

#[test]
fn a_fresh_adapter_changes_nothing_and_repeats() {
    let config = Config { scaling: 4.0, ..config([40, 36, 4, 3], Router::Input) };
    let adapter = hydralora::Adapter::initialise(&config, 7).expect("a valid configuration");
    assert_eq!(adapter, hydralora::Adapter::initialise(&config, 7).expect("a valid configuration"));
    let bound = 1.0 / 40.0f32.sqrt();
    let mean = adapter.a.iter().sum::<f32>() / adapter.a.len() as f32;
    let deviation =
        (adapter.a.iter().map(|a| (a - mean).powi(2)).sum::<f32>() / adapter.a.len() as f32).sqrt();
    assert!(adapter.a.iter().all(|a| a.abs() <= bound), "A exceeds 1 / sqrt(d_in)");
    assert!(mean.abs() < 0.2 * bound, "A's mean is {mean}");
    assert!((deviation - bound / 3.0f32.sqrt()).abs() < 0.1 * bound, "A's deviation is {deviation}");
    let case = Case { adapter, ..Case::random(config, 10, 17) };
    let step = case.run(&KERNELS, WriteMode::Accumulate);
    assert_eq!(step.y, case.y_before, "B = 0 must leave y as it is");
}

#[test]
fn more_tiles_than_one_grid_dimension_holds() {
    // A device limit of 8 workgroups in a dimension folds the grid without needing 65,536 tiles.
    let profile = DeviceProfile::of(&GPU.device);
    let limits = wgpu::Limits { max_compute_workgroups_per_dimension: 8, ..profile.limits.clone() };
    let kernels = Kernels::with_profile(&GPU.device, DeviceProfile { limits, busy_workgroups: 1 });
    let mut ratios = Ratios::default();
    let case = Case::random(config([8, 12, 2, 2], Router::Input), 700, 18);
    case.check(&case.run(&kernels, WriteMode::Overwrite), WriteMode::Overwrite, &mut ratios);
    ratios.report("properties::more_tiles_than_one_grid_dimension_holds");
}

#[test]
fn a_nan_in_one_token_stays_there() {
    for router in [Router::Input, Router::Latent] {
        for poison in [f32::NAN, f32::INFINITY] {
            let clean = Case::random(config([37, 26, 3, 4], router), 11, 19);
            let mut case = clean.clone();
            case.x[37 * 6 + 5] = poison;
            case.g[26 * 6 + 7] = poison;
            let (clean, step) =
                (clean.run(&KERNELS, WriteMode::Overwrite), case.run(&KERNELS, WriteMode::Overwrite));
            for (name, width, clean, poisoned) in [
                ("y", 26, &clean.y, &step.y),
                ("[h, w]", 7, &clean.saved, &step.saved),
                ("dx", 37, &clean.dx, &step.dx),
                ("[dh, dl]", 7, &clean.dstate, &step.dstate),
            ] {
                for (token, (clean, poisoned)) in clean.chunks(width).zip(poisoned.chunks(width)).enumerate()
                {
                    assert_eq!(
                        clean == poisoned,
                        token != 6,
                        "{name} of token {token} with {poison} in token 6"
                    );
                }
            }
        }
    }
}
