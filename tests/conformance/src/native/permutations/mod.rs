//! Every kind of shader that the library generates, and each in other languages.

pub mod translate;

use std::collections::HashSet;

use hydralora::kernel::Shader;
use hydralora::{
    AdamWHyper, BackwardInputOptions, BackwardParamsOptions, Choice, Config, DeviceProfile, Dropout,
    DropoutOf, Element, ForwardOptions, GateGradient, GateGradientsOptions, GateLossesOptions, GateRows,
    GroupHyper, Groups, LinearChoice, LinearDirection, LinearOptions, LinearWay, Operation, OuterChoice,
    Planner, Recording, Router, Sharing, Weighting, WriteMode, wgpu,
};

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

/// The gates besides the softmax of all experts, and an A for each.
const GATES: [Config; 15] = [
    Config { a: Sharing::Separate, ..LAYER },
    Config { a: Sharing::Separate, weighting: Weighting::TopK { k: 2, renormalise: true }, ..LAYER },
    Config { router: Router::Latent, weighting: Weighting::TopK { k: 2, renormalise: false }, ..LAYER },
    Config { router: Router::GivenWeights, ..LAYER },
    Config { router: Router::GivenWeights, a: Sharing::Separate, ..LAYER },
    Config { router: Router::GivenLogits, weighting: Weighting::Sigmoid, ..LAYER },
    Config { router_bias: true, weighting: Weighting::NormalisedSigmoid, ..LAYER },
    Config { router: Router::Latent, router_bias: true, ..LAYER },
    Config { logsumexp: true, ..LAYER },
    Config { logsumexp: true, weighting: Weighting::TopK { k: 2, renormalise: false }, ..LAYER },
    Config { logsumexp: true, weighting: Weighting::TopK { k: 2, renormalise: true }, ..LAYER },
    Config { weighting: Weighting::Sigmoid, experts: 1, ..LAYER },
    Config { dropout: Some(Dropout::new(0.5)), ..LAYER },
    Config { dropout: Some(Dropout::new(0.5)), rank: 5, experts: 1, ..LAYER },
    Config { dropout: Some(Dropout { of: DropoutOf::Latent, ..Dropout::new(0.5) }), ..LAYER },
];

const LAYER: Config = Config { d_in: 8, d_out: 9, rank: 4, experts: 3, ..Config::DEFAULT };

/// The frozen layer's products, with and without a bias.
const LINEAR: [(LinearDirection, bool); 3] =
    [(LinearDirection::Forward, false), (LinearDirection::Forward, true), (LinearDirection::Backward, false)];

/// Shaders of plans under WebGPU's default limits: at one rank and number of experts every flag, access
/// and tile in f32; at others, which change only constants, and in half precision, which changes only how
/// groups are read and written, the smallest and the largest tile.
#[must_use]
pub fn permutations() -> Vec<Shader> {
    let mut shaders = HashSet::new();
    for busy_workgroups in [1, 256] {
        let planner = &Planner::new(DeviceProfile::new(wgpu::Limits::default(), busy_workgroups));
        for router in [Router::Input, Router::Latent] {
            let config = |[d_in, d_out]: [u32; 2], [rank, experts]: [u32; 2]| Config {
                d_in,
                d_out,
                rank,
                experts,
                scaling: 1.0,
                router,
                ..Default::default()
            };
            for widths in WIDTHS {
                for tokens in [1, 5, 20, 300] {
                    for write in WRITES {
                        for training in [false, true] {
                            let config = config(widths, [8, 4]);
                            shaders.extend(adapter(&config, tokens, F32, write, training, planner));
                        }
                    }
                }
            }
            for ranks in [[1, 1], [1, 2], [3, 5], [4, 4], [8, 2], [10, 2], [16, 8], [64, 3], [5, 41]] {
                for tokens in [1, 300] {
                    let config = config([8, 9], ranks);
                    shaders.extend(adapter(&config, tokens, F32, WriteMode::Accumulate, true, planner));
                }
            }
            for elements in HALF {
                let training = elements[1] == Element::F32;
                for write in WRITES {
                    for tokens in [1, 300] {
                        let config = config([8, 8], [8, 4]);
                        shaders.extend(adapter(&config, tokens, elements, write, training, planner));
                    }
                }
            }
        }
        shaders.extend(with_options(planner));
        for [d_in, d_out] in WIDTHS {
            for tokens in [1, 2, 9, 17, 100] {
                for write in WRITES {
                    shaders.extend(linear([d_in, d_out, tokens], F32, write, planner));
                }
            }
        }
        for elements in HALF {
            for write in WRITES {
                shaders.extend(linear([8, 8, 100], elements, write, planner));
                // Without tiles, and with splits on the wide device.
                shaders.extend(linear([512, 512, 2], elements, write, planner));
            }
        }
        shaders.extend(with_shrink_apart(&Planner::new(DeviceProfile::new(wgpu::Limits::default(), 8))));
        let groups = Groups { b: GroupHyper { rate: 16.0, weight_decay: None }, ..Groups::default() };
        for (max_norm, groups) in
            [(None, Groups::default()), (Some(1.0), Groups::default()), (Some(1.0), groups)]
        {
            let hyper = AdamWHyper { max_norm, groups, ..AdamWHyper::default() };
            let recordings = planner.adamw(&[64], &hyper).expect("this fits");
            shaders.extend(recordings.into_iter().flat_map(shaders_of));
        }
    }
    shaders.into_iter().collect()
}

/// Shaders of layers with other gates, with an A for each expert, with dropout and a mask.
fn with_options(planner: &Planner) -> HashSet<Shader> {
    let mut shaders = HashSet::new();
    for config in GATES {
        for tokens in [1, 300] {
            for write in WRITES {
                let training = write == WriteMode::Overwrite;
                shaders.extend(adapter(&config, tokens, F32, write, training, planner));
            }
        }
    }
    for config in GATES.into_iter().filter(|config| config.experts > 1) {
        for mask in [false, true] {
            let losses = Operation::GateLosses(GateLossesOptions { mask, ..GateLossesOptions::default() });
            shaders.extend(shaders_of(planner.plan(&losses, &config, 300).expect("it fits")));
        }
    }
    for operation in operations(F32, WriteMode::Accumulate, true) {
        let masked = match operation {
            Operation::Forward(options) => Operation::Forward(ForwardOptions { mask: true, ..options }),
            Operation::BackwardInput(options) => {
                let gate_gradient = Some(GateGradient::Weights(GateRows::Token));
                Operation::BackwardInput(BackwardInputOptions { mask: true, gate_gradient, ..options })
            }
            Operation::BackwardParams(options) => {
                Operation::BackwardParams(BackwardParamsOptions { mask: true, ..options })
            }
            other @ (Operation::Linear(_) | Operation::GateGradients(_) | Operation::GateLosses(_)) => other,
        };
        shaders.extend(shaders_of(planner.plan(&masked, &LAYER, 300).expect("it fits")));
    }
    let given = Config { router: Router::GivenWeights, ..LAYER };
    let sums = Operation::GateGradients(GateGradientsOptions { rows: GateRows::Sequence(7) });
    shaders.extend(shaders_of(planner.plan(&sums, &given, 300).expect("it fits")));
    for config in GATES.into_iter().filter(|config| config.experts > 1) {
        for mask in [false, true] {
            let gate_gradient = Some(GateGradient::Losses);
            let options = BackwardInputOptions { gate_gradient, mask, ..BackwardInputOptions::default() };
            let recording = planner.plan(&Operation::BackwardInput(options), &config, 300);
            shaders.extend(shaders_of(recording.expect("it fits")));
        }
    }
    shaders
}

/// Shaders of plans whose shrink has a dispatch of its own, which the widths of all others do not make pay.
fn with_shrink_apart(planner: &Planner) -> HashSet<Shader> {
    let mut shaders = HashSet::new();
    for [d_in, d_out] in [[512, 512], [513, 513]] {
        for router in [Router::Input, Router::Latent] {
            for [rank, experts] in [[8, 4], [64, 3]] {
                let config =
                    Config { d_in, d_out, rank, experts, scaling: 1.0, router, ..Default::default() };
                for [x, parameters, y] in [F32, HALF[0], HALF[2]] {
                    if x != Element::F32 && !d_in.is_multiple_of(4) {
                        continue;
                    }
                    let (write, save) = (WriteMode::Overwrite, parameters == Element::F32);
                    let forward = Operation::Forward(ForwardOptions {
                        write,
                        save,
                        x,
                        parameters,
                        y,
                        ..Default::default()
                    });
                    let input = BackwardInputOptions { g: y, dx: Some((x, write)), ..Default::default() };
                    for operation in [forward, Operation::BackwardInput(input)] {
                        let apart = |recording: &Recording| recording.steps.len() > 1;
                        let recordings = planner.candidates(&operation, &config, 5).expect("it fits");
                        let split = |recording: &Recording| matches!(recording.choice, Some(Choice::Fused(choice)) if choice.shrink_splits > 1);
                        let recording = recordings.into_iter().find(|r| apart(r) && split(r));
                        shaders.extend(shaders_of(recording.expect("few tokens")));
                    }
                }
            }
        }
    }
    shaders
}

fn shaders_of(recording: Recording) -> impl Iterator<Item = Shader> {
    recording.steps.into_iter().map(|step| step.shader)
}

/// Shaders of plans for a device whose subgroups have at least 32 threads, which are used: as planned, and
/// with lanes that hold coefficients.
#[must_use]
pub fn with_subgroups() -> Vec<Shader> {
    let device = DeviceProfile { subgroup_lanes: 32, ..DeviceProfile::new(wgpu::Limits::default(), 2) };
    let planner = &Planner::new(device);
    let mut shaders = HashSet::new();
    for router in [Router::Input, Router::Latent] {
        for [rank, experts] in [[1, 1], [3, 5], [8, 2], [8, 4], [16, 8], [64, 3], [5, 41]] {
            let config =
                Config { d_in: 8, d_out: 8, rank, experts, scaling: 1.0, router, ..Default::default() };
            for tokens in [1, 20, 300] {
                for elements in [F32, HALF[2]] {
                    let write = WriteMode::Accumulate;
                    shaders.extend(adapter(&config, tokens, elements, write, true, planner));
                    shaders.extend(with_held(&config, tokens, elements, write, planner));
                }
            }
        }
    }
    shaders.extend(with_shrink_apart(planner));
    for software in [false, true] {
        let planner = &Planner::new(DeviceProfile { software, ..planner.profile.clone() });
        for tokens in [1, 16, 100] {
            for elements in [F32, HALF[0]] {
                shaders.extend(linear([64, 64, tokens], elements, WriteMode::Accumulate, planner));
            }
        }
    }
    shaders.retain(|shader| shader.source().wgsl.contains("subgroupShuffle"));
    shaders.into_iter().collect()
}

/// Shaders with dropout for a device whose shaders multiply in 64 bits.
#[must_use]
pub fn with_wide_products() -> Vec<Shader> {
    let device = DeviceProfile { wide_products: true, ..DeviceProfile::new(wgpu::Limits::default(), 8) };
    let planner = &Planner::new(device);
    let drops = GATES.into_iter().filter(|config| config.dropout.is_some());
    let mut shaders: HashSet<Shader> =
        drops.flat_map(|config| adapter(&config, 300, F32, WriteMode::Accumulate, true, planner)).collect();
    shaders.retain(|shader| shader.source().wgsl.contains("u64"));
    shaders.into_iter().collect()
}

/// Shaders of the frozen layer with cooperative matrices.
#[must_use]
pub fn with_matrices() -> Vec<Shader> {
    let mut shaders = HashSet::new();
    for matrices in [8, 16] {
        let device = DeviceProfile::new(wgpu::Limits::default(), 64);
        let planner = &Planner::new(DeviceProfile { matrices, subgroup_lanes: 8, ..device });
        let config = &Config { d_in: 512, d_out: 512, ..Config::default() };
        let way = LinearWay::Matrices { size: matrices };
        for (direction, bias) in LINEAR {
            for (write, target) in
                WRITES.into_iter().flat_map(|write| [Element::F16, Element::F32].map(|e| (write, e)))
            {
                let [source, weight] = [Element::F16; 2];
                let options =
                    LinearOptions { direction, bias, write, source, weight, target, ..Default::default() };
                for splits in [1, 2] {
                    let choice = LinearChoice { threads: 64, thread_tokens: 1, thread_quads: 1, splits, way };
                    let operation = Operation::Linear(options);
                    let recording = planner.plan_as(Choice::Linear(choice), &operation, config, 16);
                    let of_matrices = |shader: &Shader| shader.source().label == "linear_matrix";
                    shaders.extend(shaders_of(recording.expect("it fits")).filter(of_matrices));
                }
            }
        }
    }
    shaders.into_iter().collect()
}

/// GPUs of a vendor, as their adapters introduce themselves.
pub struct Class {
    /// The vendor's name in lower case.
    pub vendor: &'static str,
    id: u32,
    kinds: &'static [wgpu::DeviceType],
    subgroup_lanes: u32,
}

/// The vendors whose compilers `cargo xtask isa` has, with the least subgroups of their GPUs that it compiles for.
pub const CLASSES: [Class; 3] = {
    use wgpu::DeviceType::{DiscreteGpu, IntegratedGpu};
    [
        Class { vendor: "amd", id: 0x1002, kinds: &[DiscreteGpu, IntegratedGpu], subgroup_lanes: 32 },
        Class { vendor: "nvidia", id: 0x10de, kinds: &[DiscreteGpu], subgroup_lanes: 32 },
        Class { vendor: "intel", id: 0x8086, kinds: &[DiscreteGpu, IntegratedGpu], subgroup_lanes: 8 },
    ]
};

/// Shaders of the first plans that the GPUs of a class get for training layers of real models, which add to what is
/// there: what matters when they are compared with each other.
#[must_use]
pub fn planned(class: &Class) -> Vec<Shader> {
    let limits = wgpu::Limits { max_compute_workgroup_storage_size: 32 << 10, ..wgpu::Limits::default() };
    let write = WriteMode::Accumulate;
    let mut shaders = HashSet::new();
    for &kind in class.kinds {
        let info = wgpu::AdapterInfo {
            vendor: class.id,
            subgroup_min_size: class.subgroup_lanes,
            ..wgpu::AdapterInfo::new(kind, wgpu::Backend::Vulkan)
        };
        let device = DeviceProfile::of_adapter(limits.clone(), &info, wgpu::Features::SUBGROUP);
        let planner = &Planner::new(device);
        // An attention's projections in all elements; an MLP's with plain LoRA and with many experts.
        for ([d_in, d_out, rank, experts], elements) in [
            ([4096, 4096, 8, 4], &[F32, HALF[2], HALF[3]][..]),
            ([2048, 8192, 16, 1], &[F32]),
            ([14336, 4096, 32, 8], &[F32]),
        ] {
            let config = Config { d_in, d_out, rank, experts, scaling: 1.0, ..Default::default() };
            for tokens in [1, 16, 128, 1024, 4096] {
                for &[x, parameters, y] in elements {
                    shaders.extend(adapter(&config, tokens, [x, parameters, y], write, true, planner));
                    let layer = [d_in, d_out, tokens];
                    shaders.extend(linear(layer, [x, x, y], WriteMode::Overwrite, planner));
                }
            }
        }
        let recordings = planner
            .adamw(&[1 << 18], &AdamWHyper { max_norm: Some(1.0), ..AdamWHyper::default() })
            .expect("this fits");
        shaders.extend(recordings.into_iter().flat_map(shaders_of));
    }
    shaders.into_iter().collect()
}

/// Forward and both backwards of an adapter; in training all outputs, otherwise as few as there can be.
fn operations([x, parameters, y]: Elements, write: WriteMode, training: bool) -> [Operation; 3] {
    [
        Operation::Forward(ForwardOptions { write, save: training, x, parameters, y, ..Default::default() }),
        Operation::BackwardInput(BackwardInputOptions {
            g: y,
            dx: training.then_some((x, write)),
            ..Default::default()
        }),
        Operation::BackwardParams(BackwardParamsOptions { write, x, g: y, ..Default::default() }),
    ]
}

/// The shaders of an adapter's training whose lanes hold coefficients: those that are predicted to be best.
fn with_held(
    config: &Config,
    tokens: u32,
    elements: Elements,
    write: WriteMode,
    planner: &Planner,
) -> Vec<Shader> {
    let broadcast = |recording: &Recording| match recording.choice {
        Some(Choice::Fused(choice)) => choice.broadcast,
        Some(Choice::Outer(OuterChoice { broadcast, .. })) => broadcast,
        _ => false,
    };
    let shaders = |operation| {
        let recordings = planner.candidates(&operation, config, tokens).expect("these shapes fit");
        shaders_of(recordings.into_iter().find(broadcast).expect("subgroups can hold"))
    };
    operations(elements, write, true).into_iter().flat_map(shaders).collect()
}

/// The shaders of an adapter.
fn adapter(
    config: &Config,
    tokens: u32,
    elements: Elements,
    write: WriteMode,
    training: bool,
    planner: &Planner,
) -> Vec<Shader> {
    let shaders = |operation| shaders_of(planner.plan(&operation, config, tokens).expect("these shapes fit"));
    operations(elements, write, training).into_iter().flat_map(shaders).collect()
}

/// The shaders of a frozen layer.
fn linear(
    [d_in, d_out, tokens]: [u32; 3],
    [source, weight, target]: Elements,
    write: WriteMode,
    planner: &Planner,
) -> Vec<Shader> {
    let config = Config { d_in, d_out, ..Config::default() };
    let shaders = |(direction, bias)| {
        let options = LinearOptions { direction, bias, write, source, weight, target, ..Default::default() };
        shaders_of(planner.plan(&Operation::Linear(options), &config, tokens).expect("these shapes fit"))
    };
    LINEAR.into_iter().flat_map(shaders).collect()
}
