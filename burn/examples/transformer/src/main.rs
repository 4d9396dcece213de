//! Fine-tunes a small transformer of burn's own modules on four unlike texts with burn's `Learner`, with `HydraLoRA` and
//! with burn's `Lora` of about as many parameters: `cargo run --package transformer -- --help`.

mod model;
mod progress;
mod texts;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::grad_clipping::GradientClippingConfig;
use burn::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::module::{Lora, Module, ModuleVisitor, Param, ParamGroup};
use burn::optim::AdamWConfig;
use burn::store::ModuleRecord;
use burn::tensor::{Device, Tensor};
use burn::train::metric::LossMetric;
use burn::train::{InferenceStep, Learner, SupervisedTraining};
use burn_hydralora::HydraLoraConfig;
use clap::{Parser, ValueEnum};

use model::Transformer;
use progress::{Clock, Lines};
use texts::Text;

type Outcome<T> = Result<T, Box<dyn Error>>;

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
    /// Fine-tune the base in this folder, and leave the table's row there
    #[arg(long, hide = true, requires = "folder")]
    method: Option<Method>,
    #[arg(long, hide = true)]
    folder: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    HydraLora,
    Lora,
}

fn main() -> Outcome<()> {
    let options = Options::parse();
    let device = burn_hydralora::init(Device::wgpu_options())?;
    device.seed(options.seed);
    let device = device.autodiff();
    match (&options.method, &options.folder) {
        (Some(method), Some(folder)) => fine_tune(*method, folder, &options, &device),
        _ => compare(&options, &device),
    }
}

/// Trains the base, and fine-tunes it with each method in a process of its own: burn's memory pools keep what they have
/// reserved, so that each tells its own peak.
fn compare(options: &Options, device: &Device) -> Outcome<()> {
    let folder = tempfile::tempdir()?;
    let base = Transformer::new(device);
    let (base, _) = train("base", base, &[Text::base()?], options.base_steps, 1e-3, options, device)?;
    let mut rows = vec![row("frozen base", &base, "0 | |", device)?];
    base.into_record().save(base_path(folder.path()))?;
    for method in [Method::HydraLora, Method::Lora] {
        let value = method.to_possible_value().ok_or("a method has a name")?;
        let mut child = Command::new(std::env::current_exe()?);
        child.args(std::env::args_os().skip(1)).args(["--method", value.get_name()]);
        let status = child.arg("--folder").arg(folder.path()).status()?;
        if !status.success() {
            return Err(format!("{} ended with {status}", value.get_name()).into());
        }
        rows.push(std::fs::read_to_string(row_path(folder.path()))?);
    }
    println!("\n| | parameters | ms a step | MiB | prose | code | legal | tables | mean |");
    println!("|---|---|---|---|---|---|---|---|---|");
    for row in rows {
        println!("{row}");
    }
    println!("\nBits a byte on what is held out; MiB: what burn's memory pools had reserved in the end.");
    Ok(())
}

fn base_path(folder: &Path) -> PathBuf {
    folder.join("base.bpk")
}

fn row_path(folder: &Path) -> PathBuf {
    folder.join("row.md")
}

fn fine_tune(method: Method, folder: &Path, options: &Options, device: &Device) -> Outcome<()> {
    let base = Transformer::new(device).try_load_record(ModuleRecord::load(base_path(folder))?)?;
    let (name, model) = match method {
        Method::HydraLora => {
            let config = |d_in, d_out| {
                HydraLoraConfig::new(d_in, d_out, options.rank)
                    .with_experts(options.experts)
                    .with_scaling(2.0)
            };
            ("HydraLoRA", base.adapted(config, device))
        }
        Method::Lora => {
            let weights = ParamGroup::from_any_regexes(vec![r"(up|down)\..*weight$"]);
            let weights = weights.map_err(|error| format!("{error:?}"))?;
            let lora = Lora::new(options.lora_rank, 2.0 * options.lora_rank as f64).set_param_group(weights);
            ("burn's Lora", base.apply_lora(lora))
        }
    };
    let parameters = trained(&model);
    let (model, ms_per_step) = train(name, model, &Text::all()?, options.steps, 3e-3, options, device)?;
    let reserved = device.memory_pool_usage().ok_or("burn has no pools")?.bytes_reserved;
    let mib = reserved as f64 / f64::from(1 << 20);
    let row = row(name, &model, &format!("{parameters} | {ms_per_step:.0} | {mib:.0}"), device)?;
    Ok(std::fs::write(row_path(folder), row)?)
}

/// Trains what is not frozen, for one epoch of so many steps; gives the model for inference, and milliseconds a step.
fn train(
    name: &str,
    model: Transformer,
    texts: &[Text],
    steps: usize,
    rate: f64,
    options: &Options,
    device: &Device,
) -> Outcome<(Transformer, f64)> {
    let clipping = GradientClippingConfig::Norm(1.0);
    let adamw = AdamWConfig::new().with_weight_decay(0.0).with_grad_clipping(Some(clipping)).init();
    let rates = CosineAnnealingLrSchedulerConfig::new(rate, steps).init()?;
    let batches = |windows| texts::loader(windows, options.sequences, device);
    let windows = texts::draw(texts, steps * options.sequences, options.seed);
    let held_out = texts.iter().flat_map(|text| text.held_out(16)).collect();

    let clock = Clock::default();
    let logs = tempfile::tempdir()?;
    let training = SupervisedTraining::<Transformer>::new(logs.path(), batches(windows), batches(held_out))
        .metrics((LossMetric::new(),))
        .with_progress_logger(clock.clone())
        .with_application_logger(None)
        .num_epochs(1)
        .label(name);
    let training =
        if progress::has_dashboard() { training } else { training.renderer(Box::new(Lines::new())) };
    let result = training.launch(Learner::new(model, adamw, rates));
    if let Some(error) = result.error {
        return Err(error.to_string().into());
    }
    Ok((result.model, clock.ms_per_step()))
}

/// A row of the table: what it cost, and bits a byte on what is held out of each text.
fn row(name: &str, model: &Transformer, cost: &str, device: &Device) -> Outcome<String> {
    let device = device.clone().inner();
    let mut bits = Vec::new();
    for text in Text::all()? {
        for batch in texts::loader(text.held_out(64), 64, &device).iter() {
            let nats = InferenceStep::step(model, batch?).loss.try_into_scalar::<f32>()?;
            bits.push(nats / std::f32::consts::LN_2);
        }
    }
    if !bits.iter().all(|bits| bits.is_finite()) {
        return Err(format!("{name} has learnt nothing that is a number: {bits:?}").into());
    }
    let mean = bits.iter().sum::<f32>() / bits.len() as f32;
    let bits: Vec<_> = bits.iter().chain([&mean]).map(|bits| format!("{bits:.3}")).collect();
    Ok(format!("| {name} | {cost} | {} |", bits.join(" | ")))
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
