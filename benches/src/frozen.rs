//! The frozen layer by itself, either way.

use std::fmt::{self, Display};

use hydralora::device::Gpu;
use hydralora::stopwatch::Stopwatch;
use hydralora::{
    Batch, Bound, Capacity, Config, Element, Error, Kernels, LinearDirection, LinearOptions, Operation,
    Plans, Tensor, wgpu,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::contest::{Failure, check_room, sets_of};

/// A frozen layer, a way through it and a number of tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub tokens: u32,
    pub d_in: u32,
    pub d_out: u32,
    pub direction: LinearDirection,
    pub element: Element,
}

/// A projection and the logits of a small language model (SmolLM-135M).
const WIDTHS: [[u32; 2]; 2] = [[576, 1536], [576, 49152]];
const TOKENS: [u32; 3] = [1, 16, 256];
/// A projection of a large one (LLaMA-2-7B), and batches of it, for GPUs alone.
const LARGE: [u32; 2] = [4096, 4096];
const MORE_TOKENS: [u32; 4] = [128, 512, 2048, 4096];

/// The shapes that are measured.
pub fn shapes(software: bool) -> Vec<Shape> {
    let mut shapes = Vec::new();
    let large = (!software).then_some(LARGE);
    for [d_in, d_out] in WIDTHS.into_iter().chain(large) {
        let more = if large == Some([d_in, d_out]) { &MORE_TOKENS[..] } else { &[] };
        for tokens in TOKENS.into_iter().chain(more.iter().copied()) {
            for direction in [LinearDirection::Forward, LinearDirection::Backward] {
                for element in [Element::F32, Element::F16] {
                    shapes.push(Shape { tokens, d_in, d_out, direction, element });
                }
            }
        }
    }
    shapes
}

impl Shape {
    /// The kernel's name, and the way.
    pub fn kernel(&self) -> &'static str {
        match self.direction {
            LinearDirection::Forward => "linear",
            LinearDirection::Backward => "linear, backward",
        }
    }

    pub fn config(&self) -> Config {
        Config { d_in: self.d_in, d_out: self.d_out, ..Config::default() }
    }

    pub fn operation(&self) -> Operation {
        let Self { direction, element, .. } = *self;
        let (source, weight, target) = (element, element, element);
        Operation::Linear(LinearOptions { direction, source, weight, target, ..Default::default() })
    }
}

impl Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tokens, d_in, d_out, .. } = self;
        write!(f, "T={tokens} {d_in}x{d_out}")
    }
}

/// The layer on weights that are used in turn.
pub struct Frozen {
    batch: Batch,
    bound: Vec<Bound>,
    /// Bytes that it touches with all weights.
    pub working_set: u64,
}

impl Frozen {
    pub fn new(gpu: &Gpu, kernels: &Kernels, shape: &Shape) -> Result<Self, Failure> {
        let Shape { tokens, d_in, d_out, direction, element } = *shape;
        let (config, operation) = (shape.config(), shape.operation());
        let prepared = kernels.prepare(&operation, &config, Capacity { tokens, plans: Plans::One })?;
        let rng = &mut StdRng::seed_from_u64(0);
        let mut random = |len: u32| (0..len).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f32>>();
        let weight_bytes = u64::from(d_in) * u64::from(d_out) * element.bytes();
        check_room(gpu, "the weight (bytes of a buffer)", weight_bytes)?;
        let (source, target) = match direction {
            LinearDirection::Forward => (d_in, d_out),
            LinearDirection::Backward => (d_out, d_in),
        };
        let source = gpu.upload_as("source", &random(tokens * source), element)?;
        let target = gpu.zeroed_as("target", (tokens * target) as usize, element)?;
        let [source_name, target_name] = direction.names();
        let bound = (0..sets_of(weight_bytes, kernels))
            .map(|_| {
                let weight = gpu.upload_as("weight", &random(d_in * d_out), element)?;
                prepared.bind(&[
                    (source_name, Tensor::from(&source).of(element)),
                    ("weight", Tensor::from(&weight).of(element)),
                    (target_name, Tensor::from(&target).of(element)),
                ])
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let working_set =
            operation.least_work(&config, tokens)?.bytes + (bound.len() as u64 - 1) * weight_bytes;
        Ok(Self { batch: Batch::new(kernels, tokens)?, bound, working_set })
    }

    /// Seconds for one run.
    pub fn time(&self, stopwatch: &Stopwatch) -> Result<f64, Error> {
        Ok(stopwatch.time(|pass| self.encode(pass))?.as_secs_f64() / self.bound.len() as f64)
    }

    /// A run with each set of weights.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) -> Result<(), Error> {
        self.bound.iter().try_for_each(|bound| bound.encode(pass, &self.batch))
    }
}
