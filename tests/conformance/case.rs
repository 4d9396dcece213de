//! A case: what is computed, on which shape, with which options and which numbers. Every mode of the
//! suite (correctness, gradients, determinism, isolation, speed, support) runs off the same case.

use std::fmt::{self, Display};

use hydralora::{AdamWHyper, Config, LinearDirection, Router, WriteMode};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::inputs::{Inputs, noise, packed_noise};
use crate::job::{Job, Placement, Tensor};
use crate::op::{AdamWStep, BackwardInput, BackwardParams, Forward, Linear};

/// The operation of a case, with what only it can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// y alone.
    Inference(Router),
    /// y, and `[h, w]` for backward.
    Forward(Router),
    /// dx and `[dh, dl]` from given `[h, w]`.
    BackwardInput(Router),
    /// `[dh, dl]` alone: the first layer of a model.
    BackwardState(Router),
    /// The gradients of all parameters from given `[h, w]` and `[dh, dl]`.
    BackwardParams(Router),
    /// Forward and both backwards, each fed by the one before.
    Step(Router),
    /// The frozen layer, either way.
    Linear { direction: LinearDirection, bias: bool },
    /// Several steps of the optimiser.
    AdamW { clip: bool },
}

/// The shape of a case. `AdamW` has as many elements as the adapter's packed layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub tokens: u32,
    pub d_in: u32,
    pub d_out: u32,
    pub rank: u32,
    pub experts: u32,
}

/// What the planner is told of the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planning {
    /// The truth.
    Device,
    /// That it is wide: output slices and token splits also on devices that would have none.
    Wide,
    /// That a grid has at most 8 workgroups in a dimension: folded grids without millions of tokens.
    Narrow,
}

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub operation: Operation,
    pub shape: Shape,
    pub write: WriteMode,
    pub inputs: Inputs,
    pub placement: Placement,
    pub planning: Planning,
    /// Seed of the numbers, where it does not come from the name.
    pub seed: Option<u64>,
}

/// Optimiser steps in a case of `AdamW`.
const ADAMW_STEPS: u32 = 50;

impl Shape {
    pub const fn new(tokens: u32, [d_in, d_out]: [u32; 2], [rank, experts]: [u32; 2]) -> Self {
        Self { tokens, d_in, d_out, rank, experts }
    }

    /// The layer's configuration; the scaling is no power of two.
    pub fn config(&self, router: Router) -> Config {
        let Self { d_in, d_out, rank, experts, .. } = *self;
        Config { d_in, d_out, rank, experts, scaling: 1.7, router }
    }
}

impl Operation {
    pub fn router(self) -> Option<Router> {
        match self {
            Self::Inference(router)
            | Self::Forward(router)
            | Self::BackwardInput(router)
            | Self::BackwardState(router)
            | Self::BackwardParams(router)
            | Self::Step(router) => Some(router),
            Self::Linear { .. } | Self::AdamW { .. } => None,
        }
    }

    /// The kernel's name, for tables.
    pub fn kernel(self) -> &'static str {
        match self {
            Self::Inference(_) | Self::Forward(_) => "forward",
            Self::BackwardInput(_) | Self::BackwardState(_) => "backward_input",
            Self::BackwardParams(_) => "backward_params",
            Self::Step(_) => "step",
            Self::Linear { .. } => "linear",
            Self::AdamW { .. } => "adamw",
        }
    }
}

impl Case {
    /// A case with random numbers in buffers of their own, overwriting its results.
    pub fn new(operation: Operation, shape: Shape) -> Self {
        Self {
            operation,
            shape,
            write: WriteMode::Overwrite,
            inputs: Inputs::Noise,
            placement: Placement::Separate,
            planning: Planning::Device,
            seed: None,
        }
    }

    pub fn accumulating(self) -> Self {
        Self { write: WriteMode::Accumulate, ..self }
    }

    pub fn with_inputs(self, inputs: Inputs) -> Self {
        Self { inputs, ..self }
    }

    pub fn planned_for(self, planning: Planning) -> Self {
        Self { planning, ..self }
    }

    /// The seed that all numbers come from: the same name, the same numbers.
    pub fn seed(&self) -> u64 {
        // FNV-1a
        self.seed.unwrap_or_else(|| {
            self.to_string().bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
            })
        })
    }

    /// What is computed, on which numbers.
    pub fn job(&self) -> Job {
        let rng = &mut StdRng::seed_from_u64(self.seed());
        let Shape { tokens, d_in, d_out, rank, experts } = self.shape;
        let (write, inputs) = (self.write, self.inputs);
        let state = rank + experts;
        let mut x = || Tensor::input("x", d_in, inputs.activations(&mut *rng, tokens, d_in));
        match self.operation {
            Operation::Linear { direction, bias } => {
                let (source, target, source_width, target_width) = match direction {
                    LinearDirection::Forward => ("x", "y", d_in, d_out),
                    LinearDirection::Backward => ("g", "dx", d_out, d_in),
                };
                let mut tensors = vec![
                    Tensor::input(source, source_width, inputs.activations(rng, tokens, source_width)),
                    Tensor::input("weight", d_in, noise(rng, d_out * d_in)),
                    Tensor::output(target, target_width, noise(rng, tokens * target_width), write),
                ];
                if bias {
                    tensors.push(Tensor::input("bias", d_out, noise(rng, d_out)));
                }
                Job::new(tensors, vec![Box::new(Linear { direction, d_in, d_out, tokens, bias, write })])
            }
            Operation::AdamW { clip } => {
                let layout = self.shape.config(Router::Input).layout().expect("a valid configuration");
                let elements = layout.len();
                let hyper = AdamWHyper {
                    max_norm: clip.then_some(1.0),
                    weight_decay: 0.05,
                    beta1: 0.8,
                    ..AdamWHyper::default()
                };
                let len = elements as u32;
                let mut tensors = vec![
                    Tensor::update("parameters", len, noise(rng, len)),
                    Tensor::update("moments", len, vec![0.0; 2 * elements]),
                ];
                let mut ops: Vec<Box<dyn crate::op::Op>> = Vec::new();
                for step in 1..=ADAMW_STEPS {
                    let op = AdamWStep { elements, hyper, step, learning_rate: 0.01 / step as f32 };
                    tensors.push(Tensor::input(op.gradients(), len, inputs.activations(rng, 1, len)));
                    ops.push(Box::new(op));
                }
                Job::new(tensors, ops)
            }
            operation => {
                let router = operation.router().expect("an operation of the adapter");
                let config = self.shape.config(router);
                let layout = config.layout().expect("a valid configuration");
                let x = x();
                let g = Tensor::input("g", d_out, inputs.activations(rng, tokens, d_out));
                let parameters = inputs.parameters(rng, &config);
                let parameters = Tensor::input("parameters", layout.len() as u32, parameters);
                let saved = inputs.state(rng, tokens, rank, experts);
                let dstate = noise(rng, tokens * state);
                let y = Tensor::output("y", d_out, noise(rng, tokens * d_out), write);
                let dx = Tensor::output("dx", d_in, noise(rng, tokens * d_in), write);
                let before = packed_noise(rng, &layout);
                let gradients = Tensor::output("gradients", layout.len() as u32, before, write);
                let result = |name: &str| Tensor::poisoned(name, state, (tokens * state) as usize);
                let forward = |save| Forward { config, tokens, write, save };
                let backward_input = |dx| BackwardInput { config, tokens, write, dx };
                let backward_params = BackwardParams { config, tokens, write };
                match operation {
                    Operation::Inference(_) => {
                        Job::new(vec![x, parameters, y], vec![Box::new(forward(false))])
                    }
                    Operation::Forward(_) => {
                        Job::new(vec![x, parameters, y, result("saved")], vec![Box::new(forward(true))])
                    }
                    Operation::BackwardInput(_) => Job::new(
                        vec![g, parameters, Tensor::input("saved", state, saved), result("dstate"), dx],
                        vec![Box::new(backward_input(true))],
                    ),
                    Operation::BackwardState(_) => Job::new(
                        vec![g, parameters, Tensor::input("saved", state, saved), result("dstate")],
                        vec![Box::new(backward_input(false))],
                    ),
                    Operation::BackwardParams(_) => Job::new(
                        vec![
                            x,
                            g,
                            Tensor::input("saved", state, saved),
                            Tensor::input("dstate", state, dstate),
                            gradients,
                        ],
                        vec![Box::new(backward_params)],
                    ),
                    _ => Job::new(
                        vec![x, g, parameters, y, result("saved"), dx, result("dstate"), gradients],
                        vec![
                            Box::new(forward(true)),
                            Box::new(backward_input(true)),
                            Box::new(backward_params),
                        ],
                    ),
                }
            }
        }
    }
}

/// The case's name, which says everything about it that is not the default:
/// `forward/input-router/f32/T33_k101_d67_r7_N3`.
impl Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { tokens, d_in, d_out, rank, experts } = self.shape;
        let name = match self.operation {
            Operation::Inference(_) => "forward/inference",
            Operation::BackwardState(_) => "backward_input/no-dx",
            Operation::Linear { direction: LinearDirection::Forward, bias: true } => "linear/bias",
            Operation::Linear { direction: LinearDirection::Forward, bias: false } => "linear/forward",
            Operation::Linear { direction: LinearDirection::Backward, .. } => "linear/backward",
            Operation::AdamW { clip: true } => "adamw/clip",
            Operation::AdamW { clip: false } => "adamw/no-clip",
            operation => operation.kernel(),
        };
        f.write_str(name)?;
        match self.operation.router() {
            Some(Router::Input) => f.write_str("/input-router")?,
            Some(Router::Latent) => f.write_str("/latent-router")?,
            None => {}
        }
        write!(f, "/f32/T{tokens}_k{d_in}_d{d_out}_r{rank}_N{experts}")?;
        if self.write == WriteMode::Accumulate {
            f.write_str("/accumulate")?;
        }
        if self.inputs != Inputs::Noise {
            write!(f, "/{}", self.inputs)?;
        }
        match self.placement {
            Placement::Separate => {}
            Placement::OneAllocation => f.write_str("/one-allocation")?,
        }
        match self.planning {
            Planning::Device => Ok(()),
            Planning::Wide => f.write_str("/wide"),
            Planning::Narrow => f.write_str("/narrow"),
        }
    }
}
