//! Every kind of shader that the library generates, and each in other languages.

pub mod translate;

use std::collections::HashSet;

use hydralora::op::{
    AdamWPlan, BackwardInputOptions, BackwardInputPlan, BackwardParamsOptions, BackwardParamsPlan,
    ForwardOptions, ForwardPlan, LinearOptions, LinearPlan,
};
use hydralora::shader::Shader;
use hydralora::{AdamWHyper, Config, DeviceProfile, Element, LinearDirection, Router, WriteMode, wgpu};

/// Either access to either side of a layer.
const WIDTHS: [[u32; 2]; 4] = [[8, 8], [8, 9], [9, 8], [9, 9]];

const WRITES: [WriteMode; 2] = [WriteMode::Overwrite, WriteMode::Accumulate];

/// Elements of what is read, of the weights (a layer's or an adapter's) and of what is written.
type Elements = [Element; 3];

const F32: Elements = [Element::F32; 3];

/// Half precision, with and without f32 beside it: forward saves for training where parameters are f32.
const HALF: [Elements; 6] = [
    [Element::F16; 3],
    [Element::Bf16; 3],
    [Element::F16, Element::F32, Element::F16],
    [Element::Bf16, Element::F32, Element::Bf16],
    [Element::F16, Element::F32, Element::F32],
    [Element::Bf16, Element::Bf16, Element::F16],
];

/// Shaders of plans under WebGPU's default limits: at one rank and number of experts every flag, access
/// and tile in f32; at others, which change only constants, and in half precision, which changes only how
/// groups are read and written, the smallest and the largest tile.
pub fn permutations() -> Vec<Shader> {
    let mut shaders = HashSet::new();
    for busy_workgroups in [1, 256] {
        let device = &DeviceProfile::new(wgpu::Limits::default(), busy_workgroups);
        for router in [Router::Input, Router::Latent] {
            let config = |[d_in, d_out]: [u32; 2], [rank, experts]: [u32; 2]| Config {
                d_in,
                d_out,
                rank,
                experts,
                scaling: 1.0,
                router,
            };
            for widths in WIDTHS {
                for tokens in [1, 5, 20, 300] {
                    for write in WRITES {
                        for training in [false, true] {
                            let config = config(widths, [8, 4]);
                            shaders.extend(adapter(&config, tokens, F32, write, training, device));
                        }
                    }
                }
            }
            for ranks in [[1, 1], [1, 2], [3, 5], [4, 4], [8, 2], [10, 2], [16, 8], [64, 3], [5, 41]] {
                for tokens in [1, 300] {
                    let config = config([8, 9], ranks);
                    shaders.extend(adapter(&config, tokens, F32, WriteMode::Accumulate, true, device));
                }
            }
            for elements in HALF {
                let training = elements[1] == Element::F32;
                for write in WRITES {
                    for tokens in [1, 300] {
                        let config = config([8, 8], [8, 4]);
                        shaders.extend(adapter(&config, tokens, elements, write, training, device));
                    }
                }
            }
        }
        for [d_in, d_out] in WIDTHS {
            for tokens in [1, 9, 17, 100] {
                for write in WRITES {
                    shaders.extend(linear([d_in, d_out, tokens], F32, write, device));
                }
            }
        }
        for elements in HALF {
            for write in WRITES {
                shaders.extend(linear([8, 8, 100], elements, write, device));
            }
        }
        shaders.extend(with_shrink_apart(&DeviceProfile::new(wgpu::Limits::default(), 8)));
        for max_norm in [None, Some(1.0)] {
            let hyper = AdamWHyper { max_norm, ..AdamWHyper::default() };
            let plan = AdamWPlan::new(64, hyper, device).expect("this fits");
            shaders.extend(plan.dispatches.into_iter().map(|dispatch| dispatch.shader));
        }
    }
    shaders.into_iter().collect()
}

/// Shaders of plans whose shrink has a dispatch of its own, which the widths of all others do not make pay.
fn with_shrink_apart(device: &DeviceProfile) -> HashSet<Shader> {
    let mut shaders = HashSet::new();
    for [d_in, d_out] in [[512, 512], [513, 513]] {
        for router in [Router::Input, Router::Latent] {
            for [rank, experts] in [[8, 4], [64, 3]] {
                let config = Config { d_in, d_out, rank, experts, scaling: 1.0, router };
                for [x, parameters, y] in [F32, HALF[0], HALF[2]] {
                    if x != Element::F32 && !d_in.is_multiple_of(4) {
                        continue;
                    }
                    let (write, save) = (WriteMode::Overwrite, parameters == Element::F32);
                    let options = ForwardOptions { write, save, x, parameters, y };
                    let plans = ForwardPlan::candidates(&config, 5, &options, device).expect("it fits");
                    let apart = plans.into_iter().find(|plan| plan.choice.shrink_splits > 1);
                    shaders.extend(apart.expect("few tokens").dispatches.into_iter().map(|plan| plan.shader));
                    let options = BackwardInputOptions { g: y, dx: Some((x, write)) };
                    let plans = BackwardInputPlan::candidates(&config, 5, &options, device).expect("it fits");
                    let apart = plans.into_iter().find(|plan| plan.choice.shrink_splits > 1);
                    shaders.extend(apart.expect("few tokens").dispatches.into_iter().map(|plan| plan.shader));
                }
            }
        }
    }
    shaders
}

/// Shaders of plans for a device whose subgroups have at least 32 threads, which are used: as planned, and
/// with lanes that hold coefficients.
pub fn with_subgroups() -> Vec<Shader> {
    let device = &DeviceProfile { subgroup_lanes: 32, ..DeviceProfile::new(wgpu::Limits::default(), 2) };
    let mut shaders = HashSet::new();
    for router in [Router::Input, Router::Latent] {
        for [rank, experts] in [[1, 1], [3, 5], [8, 2], [8, 4], [16, 8], [64, 3], [5, 41]] {
            let config = Config { d_in: 8, d_out: 8, rank, experts, scaling: 1.0, router };
            for tokens in [1, 20, 300] {
                for elements in [F32, HALF[2]] {
                    let write = WriteMode::Accumulate;
                    shaders.extend(adapter(&config, tokens, elements, write, true, device));
                    shaders.extend(with_held(&config, tokens, elements, write, device));
                }
            }
        }
    }
    shaders.extend(with_shrink_apart(device));
    shaders.retain(|shader| shader.source().wgsl.contains("subgroupShuffle"));
    shaders.into_iter().collect()
}

/// The shaders of an adapter's training whose lanes hold coefficients: those that are predicted to be best.
fn with_held(
    config: &Config,
    tokens: u32,
    [x, parameters, y]: Elements,
    write: WriteMode,
    device: &DeviceProfile,
) -> Vec<Shader> {
    let (fits, held) = ("these shapes fit", "subgroups can hold");
    let options = ForwardOptions { write, save: true, x, parameters, y };
    let plans = ForwardPlan::candidates(config, tokens, &options, device).expect(fits);
    let forward = plans.into_iter().find(|plan| plan.choice.held).expect(held);
    let options = BackwardInputOptions { g: y, dx: Some((x, write)) };
    let plans = BackwardInputPlan::candidates(config, tokens, &options, device).expect(fits);
    let input = plans.into_iter().find(|plan| plan.choice.held).expect(held);
    let options = BackwardParamsOptions { write, x, g: y };
    let plans = BackwardParamsPlan::candidates(config, tokens, &options, device).expect(fits);
    let params = plans.into_iter().find(|plan| plan.choice.held).expect(held);
    let dispatches = [forward.dispatches, input.dispatches, params.dispatches].into_iter().flatten();
    dispatches.map(|dispatch| dispatch.shader).collect()
}

/// The shaders of an adapter; in training all outputs, otherwise as few as there can be.
fn adapter(
    config: &Config,
    tokens: u32,
    [x, parameters, y]: Elements,
    write: WriteMode,
    training: bool,
    device: &DeviceProfile,
) -> Vec<Shader> {
    let fits = "these shapes fit";
    let options = ForwardOptions { write, save: training, x, parameters, y };
    let forward = ForwardPlan::new(config, tokens, &options, device).expect(fits);
    let options = BackwardInputOptions { g: y, dx: training.then_some((x, write)) };
    let input = BackwardInputPlan::new(config, tokens, &options, device).expect(fits);
    let options = BackwardParamsOptions { write, x, g: y };
    let params = BackwardParamsPlan::new(config, tokens, &options, device).expect(fits);
    let dispatches = [forward.dispatches, input.dispatches, params.dispatches].into_iter().flatten();
    dispatches.map(|dispatch| dispatch.shader).collect()
}

/// The shaders of a frozen layer.
fn linear(
    shape: [u32; 3],
    [source, weight, target]: Elements,
    write: WriteMode,
    device: &DeviceProfile,
) -> Vec<Shader> {
    let products = [
        (LinearDirection::Forward, false),
        (LinearDirection::Forward, true),
        (LinearDirection::Backward, false),
    ];
    let plan = |(direction, bias)| {
        let options = LinearOptions { bias, write, source, weight, target };
        LinearPlan::new(direction, shape, &options, device).expect("these shapes fit").dispatch.shader
    };
    products.map(plan).to_vec()
}
