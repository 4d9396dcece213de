//! The gradients of adapters beside differences of the loss.

use hydralora::Kernels;
use hydralora::device::Gpu;

use crate::adapters::{Adapters, Projection};
use crate::error::Error;
use crate::model::{Keep, Model, Use};
use crate::shader::Shaders;
use crate::tokenizer::Tokenizer;
use crate::train::mean;
use crate::weights::Weights;

const SEQUENCE: u32 = 16;
const TOKENS: u32 = 2 * SEQUENCE;
/// How much the loss changes when the parameters are moved either way, and how far they are moved at least and at most: f32
/// knows the loss to some 1e-5, and further away it is no straight line.
const CHANGE: f64 = 4e-3;
const DISTANCES: [f64; 2] = [0.02, 0.2];
const ALLOWED: f64 = 0.02;
const TEXT: &str = "The licensor grants you a licence to copy and to modify this work, and to share it with others under the \
                    same terms, if you say whose work it is and what you have changed about it.";

/// Compares the slope of the loss along the gradients of some modules' adapters with what their backward pass says it
/// is. Prints what it finds, and says whether it is right.
pub fn check(
    gpu: &Gpu,
    kernels: &Kernels,
    weights: &Weights,
    shaders: &Shaders,
    tokenizer: &Tokenizer,
) -> Result<bool, Error> {
    let layer = hydralora::Config { rank: 4, experts: 4, scaling: 2.0, ..Default::default() };
    let targets = [
        Projection::Query,
        Projection::Value,
        Projection::Output,
        Projection::Gate,
        Projection::Up,
        Projection::Down,
    ];
    let adapters = Adapters::new(kernels, &weights.config, &targets, layer, TOKENS, 1)?;
    let stack = &adapters.stack;
    adapters.write_random_heads()?;
    let how = Use { capacity: TOKENS, context: TOKENS, training: Some(Keep::Activations) };
    let mut model = Model::new(gpu, kernels, weights, shaders, Some(&adapters), how)?;
    let ids = tokenizer.encode(TEXT)?;
    let batch = [&ids[..TOKENS as usize], &ids[1..=TOKENS as usize]];
    model.train(gpu, batch, SEQUENCE, None)?;
    let last = weights.config.blocks - 1;
    let mut right = true;
    for (block, projection) in [
        (0, Projection::Query),
        (0, Projection::Gate),
        (last / 2, Projection::Value),
        (last / 2, Projection::Down),
        (last, Projection::Output),
        (last, Projection::Up),
    ] {
        let name = projection.name(block);
        let place = stack.place(&name)?;
        let gradients = gpu.read_part_blocking(&stack.gradients()[place.buffer()], place.elements())?;
        let norm = gradients.iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let before = place.layout().pack(&stack.read(gpu, &name)?)?;
        let mut loss = |distance: f64| -> Result<f64, Error> {
            let moved =
                |(&before, &g): (&f32, &f32)| (f64::from(before) + distance * f64::from(g) / norm) as f32;
            let moved: Vec<f32> = before.iter().zip(&gradients).map(moved).collect();
            stack.write(&name, &place.layout().unpack(&moved)?)?;
            Ok(mean(&gpu.block_on(model.losses(gpu, batch, SEQUENCE))??))
        };
        let distance = (CHANGE / norm).clamp(DISTANCES[0], DISTANCES[1]);
        let slope = (loss(distance)? - loss(-distance)?) / (2.0 * distance);
        loss(0.0)?;
        let off = (slope / norm - 1.0).abs();
        println!("{name}: the gradient is {norm:.4} long, the slope along it {slope:.4}");
        right &= off <= ALLOWED;
    }
    Ok(right)
}
