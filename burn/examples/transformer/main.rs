//! Fine-tunes a small transformer of burn's own modules on four unlike texts, with `HydraLoRA` and with burn's `Lora` of
//! about as many parameters: `cargo run --example transformer -- --help`.

mod model;
mod texts;

use std::error::Error;
use std::time::Instant;

use burn::grad_clipping::GradientClippingConfig;
use burn::module::{Lora, Module, ModuleVisitor, Param, ParamGroup};
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use burn_hydralora::HydraLoraConfig;
use clap::Parser;

use model::{CONTEXT, Transformer};
use texts::{Batch, Sampler, Text};

#[derive(Parser)]
#[command(about)]
struct Options {
    /// Steps in which the base learns its own text
    #[arg(long, default_value_t = 400)]
    base_steps: usize,
    /// Steps of fine-tuning
    #[arg(long, default_value_t = 200)]
    steps: usize,
    /// Sequences of a step, of 64 bytes each
    #[arg(long, default_value_t = 16)]
    sequences: usize,
    /// Rank of `HydraLoRA`
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// Experts of `HydraLoRA`
    #[arg(long, default_value_t = 4)]
    experts: usize,
    /// Rank of burn's Lora
    #[arg(long, default_value_t = 20)]
    lora_rank: usize,
    /// Seed of adapters, weights and batches
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What a run of training has cost.
struct Run {
    model: Transformer,
    ms_per_step: f64,
    /// What burn's pools had to reserve, in MiB.
    memory: f64,
}

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    let device = burn_hydralora::init(Device::wgpu_options())?;
    device.seed(options.seed);
    let training = device.clone().autodiff();
    let base_text = [Text::base()?];
    let texts = Text::all()?;

    let base = Transformer::new(&training);
    let base = train("base", base, &base_text, options.base_steps, 1e-3, &options, &training)?.model;

    let alpha = 2.0 * options.rank as f32;
    let config = |d_in, d_out| {
        let scaling = alpha / options.rank as f32;
        HydraLoraConfig::new(d_in, d_out, options.rank).with_experts(options.experts).with_scaling(scaling)
    };
    let hydra = base.clone().adapted(config, &training);
    let weights =
        ParamGroup::from_any_regexes(vec![r"(up|down)\..*weight$"]).map_err(|error| format!("{error:?}"))?;
    let lora = Lora::new(options.lora_rank, 2.0 * options.lora_rank as f64).set_param_group(weights);
    let lora = base.clone().apply_lora(lora);

    let mut rows = vec![row("frozen base", &base, &texts, None, &device)?];
    for (name, model) in [("HydraLoRA", hydra), ("burn's Lora", lora)] {
        let parameters = trained(&model);
        let run = train(name, model, &texts, options.steps, 3e-3, &options, &training)?;
        rows.push(row(name, &run.model, &texts, Some((parameters, &run)), &device)?);
    }
    println!("\n| | parameters | ms a step | MiB | prose | code | legal | tables | mean |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        println!("{row}");
    }
    Ok(())
}

/// Trains what is not frozen, and shows how the loss falls.
fn train(
    name: &str,
    mut model: Transformer,
    texts: &[Text],
    steps: usize,
    rate: f64,
    options: &Options,
    device: &Device,
) -> Result<Run, Box<dyn Error>> {
    let loss = CrossEntropyLossConfig::new().init(device);
    let clipping = GradientClippingConfig::Norm(1.0);
    let mut adamw = AdamWConfig::new().with_weight_decay(0.0).with_grad_clipping(Some(clipping)).init();
    let mut sampler = Sampler::new(texts, options.seed);
    device.sync()?;
    device.memory_cleanup();
    let begin = Instant::now();
    let (mut memory, mut mean, mut first) = (0, f32::NAN, None);
    for step in 0..steps {
        let Batch { inputs, targets } = sampler.draw(options.sequences, device);
        let logits = model.forward(inputs).reshape([options.sequences * CONTEXT, 256]);
        let loss = loss.forward(logits, targets);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        // A cosine.
        let part = step as f64 / steps as f64;
        model = adamw.step(rate * 0.5 * (1.0 + (std::f64::consts::PI * part).cos()), model, gradients);
        // Waits for the device, and is the only place that does.
        let bits = loss.try_into_scalar::<f32>()? / std::f32::consts::LN_2;
        mean = if mean.is_nan() { bits } else { 0.95 * mean + 0.05 * bits };
        memory = memory.max(device.memory_pool_usage().map_or(0, |usage| usage.bytes_reserved));
        if (step + 1) % steps.div_ceil(10) == 0 || step + 1 == steps {
            let seconds = begin.elapsed().as_secs_f64();
            eprintln!("{name:11} {:>4}/{steps}  {mean:.3} bits a byte  {seconds:.0} s", step + 1);
        }
        // Kernels are compiled and chosen in the first steps.
        if step == steps / 4 {
            first = Some((step, Instant::now()));
        }
    }
    let (skipped, begin) = first.unwrap_or((0, Instant::now()));
    let ms_per_step = 1e3 * begin.elapsed().as_secs_f64() / (steps - skipped - 1).max(1) as f64;
    Ok(Run { model, ms_per_step, memory: memory as f64 / f64::from(1 << 20) })
}

/// A row of the table: bits a byte on what is held out of each text.
fn row(
    name: &str,
    model: &Transformer,
    texts: &[Text],
    run: Option<(usize, &Run)>,
    device: &Device,
) -> Result<String, Box<dyn Error>> {
    let model = model.valid();
    let loss = CrossEntropyLossConfig::new().init(device);
    let mut bits = Vec::new();
    for text in texts {
        let Batch { inputs, targets } = text.held_out(64, device);
        let logits = model.forward(inputs).reshape([64 * CONTEXT, 256]);
        let nats = loss.forward(logits, targets).try_into_scalar::<f32>()?;
        bits.push(nats / std::f32::consts::LN_2);
        assert!(bits.last().is_some_and(|bits| bits.is_finite()), "{name} on {}", text.name);
    }
    let mean = bits.iter().sum::<f32>() / bits.len() as f32;
    let bits: Vec<_> = bits.iter().chain([&mean]).map(|bits| format!("{bits:.3}")).collect();
    let cost = run.map_or("| 0 | | |".to_owned(), |(parameters, run)| {
        format!("| {parameters} | {:.0} | {:.0} |", run.ms_per_step, run.memory)
    });
    Ok(format!("| {name} {cost} {} |", bits.join(" | ")))
}

/// The number of parameters that are trained.
fn trained(model: &Transformer) -> usize {
    struct Count(usize);
    impl ModuleVisitor for Count {
        fn visit_float<const D: usize>(&mut self, parameter: &Param<Tensor<D>>) {
            if parameter.is_require_grad() {
                self.0 += parameter.shape().num_elements();
            }
        }
    }
    let mut count = Count(0);
    model.visit(&mut count);
    count.0
}
