//! What options of a layer cost: each in turn with the plain layer, in forward and in a training step, on the same
//! tensors.

use std::collections::HashMap;
use std::time::Duration;

use hydralora::device::Gpu;
use hydralora::stopwatch::Stopwatch;
use hydralora::{
    BackwardInputOptions, BackwardParamsOptions, Batch, Bound, Capacity, Config, Dropout, DropoutOf, Element,
    Error, ForwardOptions, GateGradient, Kernels, LinearDirection, LinearOptions, Operation, Plans, Router,
    Sharing, Tensor, Weighting, WriteMode, wgpu,
};
use hydralora_benches::contest::config;
use hydralora_benches::grid::Shape;

use crate::median;
use crate::report::OptionRow;

/// An option: what it changes in the layer and in its operations.
struct Variant {
    name: &'static str,
    config: Config,
    mask: bool,
    gate_gradient: Option<GateGradient>,
}

fn variants(plain: Config) -> Vec<Variant> {
    let variant = |name, config| Variant { name, config, mask: false, gate_gradient: None };
    let top = |renormalise| Weighting::TopK { k: 2, renormalise };
    let dropout = |of, probability| Some(Dropout { of, ..Dropout::new(probability) });
    vec![
        variant("the same again", plain),
        variant("latent router", Config { router: Router::Latent, ..plain }),
        variant("router bias", Config { router_bias: true, ..plain }),
        variant("temperature", Config { temperature: 0.7, ..plain }),
        variant("top 2", Config { weighting: top(false), ..plain }),
        variant("top 2, renormalised", Config { weighting: top(true), ..plain }),
        variant("sigmoid", Config { weighting: Weighting::Sigmoid, ..plain }),
        variant("normalised sigmoid", Config { weighting: Weighting::NormalisedSigmoid, ..plain }),
        variant("given logits", Config { router: Router::GivenLogits, ..plain }),
        variant("given weights", Config { router: Router::GivenWeights, ..plain }),
        Variant { mask: true, ..variant("mask", plain) },
        Variant {
            gate_gradient: Some(GateGradient::Losses),
            ..variant("a gradient of the weights added", plain)
        },
        Variant {
            gate_gradient: Some(GateGradient::Losses),
            ..variant("z-loss", Config { logsumexp: true, ..plain })
        },
        variant("dropout of x, 0", Config { dropout: dropout(DropoutOf::Input, 0.0), ..plain }),
        variant("dropout of x, 0.05", Config { dropout: dropout(DropoutOf::Input, 0.05), ..plain }),
        variant("dropout of h, 0.05", Config { dropout: dropout(DropoutOf::Latent, 0.05), ..plain }),
        variant("an A for each expert", Config { a: Sharing::Separate, ..plain }),
    ]
}

/// The tensors of all variants: those with equal names and lengths are the same.
struct Tensors<'a> {
    gpu: &'a Gpu,
    buffers: HashMap<(&'static str, u64), wgpu::Buffer>,
}

impl Tensors<'_> {
    fn bind(
        &mut self,
        kernels: &Kernels,
        operation: &Operation,
        config: &Config,
        tokens: u32,
    ) -> Result<Bound, Error> {
        let prepared = kernels.prepare(operation, config, Capacity { tokens, plans: Plans::One })?;
        let operands = prepared.recordings().last().map_or(&[][..], |recording| &recording.tensors);
        for operand in operands {
            let len = operand.rows * operand.columns;
            if !self.buffers.contains_key(&(operand.name, len)) {
                // A mask of ones, so that a masked layer does all of the work.
                let number = |at: u64| match operand.name {
                    "mask" => 1.0,
                    _ => (at.wrapping_mul(2_654_435_761) >> 8) as u32 as f32 / u32::MAX as f32 - 0.5,
                };
                let numbers: Vec<f32> = (0..len).map(number).collect();
                self.buffers.insert((operand.name, len), self.gpu.upload(operand.name, &numbers)?);
            }
        }
        let tensor = |operand: &hydralora::Operand| {
            let buffer = &self.buffers[&(operand.name, operand.rows * operand.columns)];
            (operand.name, Tensor::from(buffer))
        };
        prepared.bind(&operands.iter().map(tensor).collect::<Vec<_>>())
    }

    fn step(&mut self, kernels: &Kernels, variant: &Variant, tokens: u32) -> Result<[Bound; 3], Error> {
        let Variant { config, mask, gate_gradient, .. } = *variant;
        let write = WriteMode::Accumulate;
        let forward = ForwardOptions { write, save: true, mask, ..ForwardOptions::default() };
        let dx = Some((Element::F32, write));
        let input = BackwardInputOptions { dx, mask, gate_gradient, ..BackwardInputOptions::default() };
        let params = BackwardParamsOptions { mask, ..BackwardParamsOptions::default() };
        Ok([
            self.bind(kernels, &Operation::Forward(forward), &config, tokens)?,
            self.bind(kernels, &Operation::BackwardInput(input), &config, tokens)?,
            self.bind(kernels, &Operation::BackwardParams(params), &config, tokens)?,
        ])
    }
}

/// A run of a step repeats it for about this long, but no more often than this.
const ENOUGH: Duration = Duration::from_millis(10);
const MOST_REPEATS: f64 = 100.0;

/// The cost of every option at a shape, in f32, adding to y and dx.
pub fn measure(
    gpu: &Gpu,
    stopwatch: &Stopwatch,
    kernels: &Kernels,
    shape: &Shape,
    rounds: usize,
) -> Result<Vec<OptionRow>, Error> {
    let (plain, tokens) = (config(shape), shape.tokens);
    let tensors = &mut Tensors { gpu, buffers: HashMap::new() };
    let batch = Batch::new(kernels, tokens)?;
    let variants = variants(plain);
    let reference = tensors.step(kernels, &variants[0], tokens)?;
    let encode = |bound: &[Bound], pass: &mut wgpu::ComputePass<'_>| {
        bound.iter().try_for_each(|bound| bound.encode(pass, &batch))
    };
    let once = |bound: &[Bound]| stopwatch.time(|pass| encode(bound, pass));
    once(&reference)?;
    // Differences of a few percent are hidden by the clock's noise where a step is short.
    let repeats =
        (ENOUGH.as_secs_f64() / once(&reference)?.as_secs_f64()).clamp(1.0, MOST_REPEATS).ceil() as u32;
    stopwatch.warm_up(|pass| encode(&reference, pass))?;
    let seconds = |bound: &[Bound]| -> Result<f64, Error> {
        let time = stopwatch.time(|pass| (0..repeats).try_for_each(|_| encode(bound, pass)))?;
        Ok(time.as_secs_f64() / f64::from(repeats))
    };
    let frozen = [LinearDirection::Forward, LinearDirection::Backward].map(|direction| {
        let linear = Operation::Linear(LinearOptions { direction, ..LinearOptions::default() });
        tensors.bind(kernels, &linear, &plain, tokens)
    });
    let [forward, backward] = frozen;
    let frozen = [forward?, backward?];
    seconds(&frozen)?;
    let frozen = (0..3).map(|_| seconds(&frozen)).collect::<Result<Vec<_>, _>>().map(median)?;
    let mut rows = Vec::new();
    for variant in &variants {
        let other = tensors.step(kernels, variant, tokens)?;
        // Each operation, the step, and the step with the frozen layer.
        let mut ratios = [const { Vec::new() }; 5];
        seconds(&other)?;
        for _ in 0..rounds {
            for (at, ratios) in ratios[..3].iter_mut().enumerate() {
                let [plain, other] = [seconds(&reference[at..=at])?, seconds(&other[at..=at])?];
                ratios.push(other / plain);
            }
            let [plain, other] = [seconds(&reference)?, seconds(&other)?];
            ratios[3].push(other / plain);
            ratios[4].push((frozen + other) / (frozen + plain));
        }
        let [forward, backward_input, backward_params, step, whole] = ratios.map(median);
        println!(
            "{shape}, {}: forward {forward:.3}, backward {backward_input:.3} and {backward_params:.3}, step {step:.3}, \
             with the frozen layer {whole:.3}",
            variant.name
        );
        let (shape, option) = (shape.to_string(), variant.name.to_owned());
        rows.push(OptionRow { shape, option, forward, backward_input, backward_params, step, whole });
    }
    Ok(rows)
}
