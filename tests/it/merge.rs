//! Adapters merged into frozen weights are what the formula says, and come out again.

use hydralora::{
    Adapter, Config, Element, Error, Kernels, Merge, MergeDescriptor, MergeError, Router, Sharing, Tensor,
    wgpu,
};

use crate::common::GPU;

fn numbers(count: usize, seed: f32) -> Vec<f32> {
    (0..count).map(|at| ((at as f32 + seed) * 0.37).sin()).collect()
}

fn adapter(config: &Config) -> Adapter {
    let layout = config.layout().expect("a valid configuration");
    layout.unpack(&numbers(layout.len(), 0.5)).expect("as many as it has")
}

/// `W0 + s * sum_i w_i B_i A_i` in f64, and a bound on the errors of f32.
fn formula(config: &Config, adapter: &Adapter, gates: &[f32], weight: &[f32]) -> Vec<(f64, f64)> {
    let [d_in, rank] = [config.d_in, config.rank].map(|n| n as usize);
    let element = |at: usize| {
        let (o, c) = (at / d_in, at % d_in);
        let start = f64::from(weight[at]);
        let (mut sum, mut size) = (start, start.abs());
        for (i, b) in adapter.b.iter().enumerate() {
            for j in 0..rank {
                let row = if config.a == Sharing::Separate { i * rank + j } else { j };
                let product = f64::from(config.scaling)
                    * f64::from(gates[i])
                    * f64::from(b[o * rank + j])
                    * f64::from(adapter.a[row * d_in + c]);
                sum += product;
                size += product.abs();
            }
        }
        (sum, 16.0 * f64::from(f32::EPSILON) * size)
    };
    (0..weight.len()).map(element).collect()
}

fn merge(
    kernels: &Kernels,
    config: &Config,
    gates: Option<&[f32]>,
    weight: &wgpu::Buffer,
    element: Element,
    undo: bool,
) {
    let (config, adapter) = (*config, &adapter(config));
    let weight = Tensor::from(weight).of(element);
    let descriptor = MergeDescriptor { config, adapter, gates, weight, undo };
    let merge = Merge::prepare(kernels, &descriptor).expect("a valid merge");
    GPU.submit(|pass| merge.encode(pass)).expect("the device runs");
}

#[test]
fn merged_weights_are_what_the_formula_says() {
    let kernels = &Kernels::new(&GPU.device, &GPU.queue);
    let layer = Config { d_in: 36, d_out: 28, rank: 5, experts: 3, scaling: 1.7, ..Config::DEFAULT };
    let gates: &[f32] = &[0.5, -0.25, 0.75];
    for (config, gates) in [
        (Config { experts: 1, ..layer }, None),
        (layer, Some(gates)),
        (Config { a: Sharing::Separate, ..layer }, Some(gates)),
        (Config { router: Router::GivenWeights, d_in: 37, ..layer }, Some(gates)),
    ] {
        let elements = (config.d_in * config.d_out) as usize;
        for element in [Element::F32, Element::F16, Element::Bf16] {
            if element != Element::F32 && !config.d_in.is_multiple_of(4) {
                continue;
            }
            let weight = element.decode(&element.encode(&numbers(elements, 7.0)));
            let buffer = GPU.upload_as("weight", &weight, element).expect("it fits");
            let read = || GPU.read_as_blocking(&buffer, element, elements).expect("the device runs");
            merge(kernels, &config, gates, &buffer, element, false);
            let merged = read();
            let expected = formula(&config, &adapter(&config), gates.unwrap_or(&[1.0]), &weight);
            // Half a unit in the last place; f16 rounds to either neighbour.
            let unit = match element {
                Element::F32 => 0.0,
                Element::F16 => 2f64.powi(-10),
                Element::Bf16 => 2f64.powi(-8),
            };
            assert_ne!(merged[..elements], weight[..]);
            for (at, (&actual, (value, bound))) in merged.iter().zip(expected).enumerate() {
                let bound = bound + unit * (value.abs() + bound);
                assert!((f64::from(actual) - value).abs() <= bound, "{element} {at}: {actual}, not {value}");
            }
            merge(kernels, &config, gates, &buffer, element, true);
            for (&back, (&before, &merged)) in read().iter().zip(weight.iter().zip(&merged)) {
                let bound = (2.0 * unit + 64.0 * f64::from(f32::EPSILON))
                    * f64::from(before.abs() + merged.abs() + 1.0);
                assert!(f64::from(back - before).abs() <= bound, "{element}: {back} came back for {before}");
            }
        }
    }
}

#[test]
fn a_router_is_not_merged_by_itself() {
    let kernels = &Kernels::new(&GPU.device, &GPU.queue);
    let config = Config { d_in: 8, d_out: 8, rank: 2, experts: 2, ..Config::DEFAULT };
    let buffer = GPU.zeroed("weight", 64).expect("it fits");
    let (adapter, weight) = (&adapter(&config), Tensor::from(&buffer));
    let descriptor = MergeDescriptor { config, adapter, gates: None, weight, undo: false };
    let error = Merge::prepare(kernels, &descriptor).expect_err("its weights depend on the token");
    assert!(
        matches!(error, Error::Exclusive { .. }) && error.to_string().contains("depend on the token"),
        "{error}"
    );
    let gates = Some(&[1.0][..]);
    let error = Merge::prepare(kernels, &MergeDescriptor { gates, ..descriptor }).expect_err("there are two");
    assert!(error.to_string().contains("the experts' weights"), "{error}");
    for gate in [f32::NAN, f32::INFINITY] {
        let gates = Some(&[0.5, gate][..]);
        let error = Merge::prepare(kernels, &MergeDescriptor { gates, ..descriptor });
        let error = error.expect_err("W0 would be lost");
        assert!(matches!(error, Error::InvalidNumber { name: "an expert's weight", .. }), "{error}");
    }
    let gates = Some(&[f32::MAX; 2][..]);
    let config = Config { scaling: 1e9, ..config };
    let error = Merge::prepare(kernels, &MergeDescriptor { config, gates, ..descriptor });
    let error = error.expect_err("f32 does not hold it");
    assert!(matches!(error, Error::InvalidNumber { name: "a factor of the merged weights", .. }), "{error}");
    let weight = Tensor::new(&buffer, 0, 128);
    let gates = Some(&[0.5; 2][..]);
    let error =
        Merge::prepare(kernels, &MergeDescriptor { gates, weight, ..descriptor }).expect_err("it is half");
    assert!(matches!(error, Error::TooSmall { .. }), "{error}");
}

#[test]
fn the_error_of_merging_is_that_of_the_outputs() {
    let error = MergeError::between(&[3.0, -4.0, 0.0, 0.0], &[3.0, -4.5, 0.0, 1.0]).expect("equally many");
    let rms = (1.25f64 / 4.0).sqrt();
    assert_eq!(error, MergeError { difference: rms, output: 2.5, largest: 1.0 });
    let error = MergeError::between(&[1.0, f32::NAN], &[1.0, 1.0]).expect("equally many");
    assert!(error.difference.is_nan() && error.largest.is_nan());
    let error = MergeError::between(&[1.0], &[1.0, 1.0]).expect_err("one is missing");
    assert!(error.to_string().contains("the merged layer's outputs"), "{error}");
}
