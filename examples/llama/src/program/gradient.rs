//! The gradients of adapters beside differences of the loss.

use hydralora::device::Gpu;
use hydralora::{Adapter, Kernels};
use hydralora_llama::adapters::{Adapters, Design, Projection};
use hydralora_llama::model::{Keep, Model, Use};
use hydralora_llama::shader::Shaders;
use hydralora_llama::tokenizer::Tokenizer;
use hydralora_llama::train::mean;
use hydralora_llama::weights::Weights;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::error::Error;

const SEQUENCE: u32 = 16;
const TOKENS: u32 = 2 * SEQUENCE;
/// How much the loss changes about when the numbers are moved either way, and how far each is moved at least and at most: further
/// away the loss is no cubic.
const CHANGE: f64 = 1e-3;
const DISTANCES: [f64; 2] = [1e-3, 2e-2];
/// How far the slope may be off: of the gradient's length, and for the loss, which f32 knows so well.
const ALLOWED: f64 = 0.02;
const ROUNDING: f64 = 2e-6;
const TEXT: &str = "The licensor grants you a licence to copy and to modify this work, and to share it with others under the \
                    same terms, if you say whose work it is and what you have changed about it.";

/// Compares the slope of the loss with what the backward pass says it is, for some modules' adapters: all numbers of A are moved,
/// each up or down as chance has it, then those of the experts, then those of the router. A gradient that lacks a part of its
/// numbers is off then, which it is not along itself. Prints what it finds, and says whether it is right.
pub fn check(
    gpu: &Gpu,
    kernels: &Kernels,
    weights: &Weights,
    shaders: &Shaders,
    tokenizer: &Tokenizer,
) -> Result<bool, Error> {
    let ids = tokenizer.encode(TEXT)?;
    if ids.len() <= TOKENS as usize {
        return Err(Error::FewTokens { needed: TOKENS, tokens: ids.len() });
    }
    let batch = [&ids[..TOKENS as usize], &ids[1..=TOKENS as usize]];
    let layer = hydralora::Config { rank: 4, experts: 4, scaling: 2.0, ..Default::default() };
    let design = Design { targets: &Projection::ALL, layer, capacity: TOKENS };
    let adapters = Adapters::new(kernels, &weights.config, &design, 1)?;
    let stack = &adapters.stack;
    adapters.write_random_heads()?;
    let how = Use { capacity: TOKENS, context: TOKENS, training: Some(Keep::Activations) };
    let mut model = gpu.block_on(Model::new(gpu, kernels, weights, shaders, Some(&adapters), how))??;
    model.train(gpu, batch, SEQUENCE, None)?;
    let last = weights.config.blocks - 1;
    let mut random = StdRng::seed_from_u64(1);
    let mut right = true;
    for (block, projection) in [
        (0, Projection::Value),
        (0, Projection::Gate),
        // In SmolLM2's first block these count for so little that rounding hides it.
        (last / 2, Projection::Query),
        (last / 2, Projection::Key),
        (last / 2, Projection::Down),
        (last, Projection::Output),
        (last, Projection::Up),
    ] {
        let name = projection.name(block);
        let place = stack.place(&name)?;
        let gradients = gpu.read_part_blocking(&stack.gradients()[place.buffer()], place.elements())?;
        let gradients = place.layout().unpack(&gradients)?;
        let before = stack.read(gpu, &name)?;
        let mut found = Vec::new();
        for part in PARTS {
            let gradient: Vec<f64> = part.of(&gradients).map(f64::from).collect();
            let signs: Vec<f64> =
                gradient.iter().map(|_| if random.random_bool(0.5) { 1.0 } else { -1.0 }).collect();
            let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
            let mut loss = |distance: f64| -> Result<f64, Error> {
                let mut moved = before.clone();
                for (number, sign) in part.of_mut(&mut moved).zip(&signs) {
                    *number = (f64::from(*number) + distance * sign) as f32;
                }
                stack.write(&name, &moved)?;
                Ok(mean(&gpu.block_on(model.losses(gpu, batch, SEQUENCE))??))
            };
            let distance = (CHANGE / length).clamp(DISTANCES[0], DISTANCES[1]);
            let mut slope = |distance: f64| -> Result<f64, Error> {
                Ok((loss(distance)? - loss(-distance)?) / (2.0 * distance))
            };
            // Differences over two distances, so that a cubic has no error.
            let slope = (4.0 * slope(distance)? - slope(2.0 * distance)?) / 3.0;
            let expected: f64 = gradient.iter().zip(&signs).map(|(gradient, sign)| gradient * sign).sum();
            // The losses of both distances count.
            let (off, allowed) = (slope - expected, ALLOWED * length + 1.5 * ROUNDING / distance);
            // A gradient that cannot be told from zeros is none.
            right &= off.abs() <= allowed && allowed < length;
            let percent = |part: f64| 100.0 * part / length;
            found.push(format!("{part:?} {:.2} of {:.1} %", percent(off.abs()), percent(allowed)));
        }
        stack.write(&name, &before)?;
        println!("{name}: the loss's slope is off, beside the gradient, by {}", found.join(", "));
    }
    Ok(right)
}

/// The matrices of an adapter.
#[derive(Debug, Clone, Copy)]
enum Part {
    A,
    B,
    Router,
}

const PARTS: [Part; 3] = [Part::A, Part::B, Part::Router];

impl Part {
    fn of(self, adapter: &Adapter) -> Box<dyn Iterator<Item = f32> + '_> {
        match self {
            Self::A => Box::new(adapter.a.iter().copied()),
            Self::B => Box::new(adapter.b.iter().flatten().copied()),
            Self::Router => Box::new(adapter.router.iter().copied()),
        }
    }

    fn of_mut(self, adapter: &mut Adapter) -> Box<dyn Iterator<Item = &mut f32> + '_> {
        match self {
            Self::A => Box::new(adapter.a.iter_mut()),
            Self::B => Box::new(adapter.b.iter_mut().flatten()),
            Self::Router => Box::new(adapter.router.iter_mut()),
        }
    }
}
