//! Fine-tunes a small frozen language model on your GPU, with HydraLoRA and with plain LoRA:
//! `cargo run --release -p hydralora-finetune -- --help`.

mod files;
mod plot;
mod progress;
mod report;
mod variant;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use hydralora::device::{self, Gpu};
use hydralora::{Config, Dropout, Element};
use hydralora_finetune::Result;
use hydralora_finetune::adapters::{self, Adapters};
use hydralora_finetune::clusters;
use hydralora_finetune::corpus::Text;
use hydralora_finetune::evaluate::{self, Score, evaluate};
use hydralora_finetune::runtime::Runtime;
use hydralora_finetune::train::{LOOK_EVERY, TOKENS, Trainer, Training};

use files::Source;
use progress::Progress;
use report::{Entry, thousands};
use variant::Variant;

/// The largest accepted difference between the base's bits per byte and the published ones.
const TOLERANCE: f64 = 0.01;

/// The number of steps between saves, where there is a folder to save into.
const SAVE_EVERY: u32 = 50;

/// Fine-tunes a frozen byte-level language model on several texts at once, with HydraLoRA or a relative of it and
/// with plain LoRA of about as many parameters, and compares them on held-out text.
#[derive(Parser)]
#[command(name = "finetune", version)]
struct Options {
    /// Training steps, each of 256 predicted bytes
    #[arg(long, default_value_t = 400, value_parser = count)]
    steps: u32,
    /// HydraLoRA's rank: the rows of A
    #[arg(long, default_value_t = 8, value_parser = count)]
    rank: u32,
    /// HydraLoRA's experts: the number of matrices B
    #[arg(long, default_value_t = 4, value_parser = count)]
    experts: u32,
    /// The method to compare with plain LoRA
    #[arg(long, value_enum, default_value_t = Variant::Hydralora)]
    variant: Variant,
    /// The experts that each token takes, those with the largest weights [default: all; for mola 2]
    #[arg(long, value_name = "K", value_parser = count)]
    top_k: Option<u32>,
    /// Cluster the texts and plot how many experts they suggest, instead of fine-tuning
    #[arg(long)]
    choose_experts: bool,
    /// How the frozen base's matrices are stored; they come in f16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = dtype)]
    dtype: Element,
    /// The probability of dropout in training
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    dropout: f32,
    /// The coefficient of the loss that keeps experts in balance
    #[arg(long, value_name = "C", default_value_t = 0.0, value_parser = finite)]
    balance: f32,
    /// A text of your own instead of the four that come with the demo; can be repeated
    #[arg(long = "text", value_name = "NAME=FILE")]
    texts: Vec<Source>,
    /// The GPU to use, by a part of its name
    #[arg(long, value_name = "NAME")]
    adapter: Option<String>,
    /// Seed of the fresh adapters and of the order of the data
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Save the adapters and the state of training there, every 50 steps and at the end
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Go on from what was saved there, with the same options: the adapters become the same, bit for bit
    #[arg(long, value_name = "FOLDER")]
    resume: Option<PathBuf>,
    /// Stop after this step, to go on later
    #[arg(long, value_name = "STEP", value_parser = count)]
    until: Option<u32>,
    /// Score nothing: only train, and write each step's loss to loss.json
    #[arg(long)]
    only_train: bool,
    /// Where to write the pictures and the adapter [default: the project's target/demo]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

fn count(text: &str) -> Result<u32, &'static str> {
    text.parse().ok().filter(|&count| count > 0).ok_or("expected a whole number, at least 1")
}

fn finite(text: &str) -> Result<f32, &'static str> {
    text.parse().ok().filter(|number: &f32| number.is_finite()).ok_or("expected a finite number")
}

fn dtype(text: &str) -> Result<Element, String> {
    let known = [Element::F32, Element::F16, Element::Bf16];
    let found = known.into_iter().find(|element| element.to_string() == text);
    found.ok_or_else(|| format!("expected one of {}", known.map(|element| element.to_string()).join(", ")))
}

fn main() -> ExitCode {
    env_logger::init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The package is in examples/finetune.
    let project = package.ancestors().nth(2).unwrap_or(package);
    let out = options.out.clone().unwrap_or_else(|| project.join("target/demo"));
    std::fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    let data = package.join("data");
    let corpora = data.join("corpora");
    let texts = if options.texts.is_empty() {
        files::defaults(&corpora)?
    } else {
        files::from_sources(&options.texts)?
    };
    plot::load_font()?;
    if options.choose_experts {
        return choose_experts(options, &texts, &out.join("elbow.png"), project);
    }
    let gpu = pollster::block_on(open(options.adapter.as_deref()))?;
    let base = files::read(&data.join("base.safetensors"))?;
    let own = Text::of_base(&files::read(&corpora.join("base.txt"))?)?;
    let runtime = Runtime::new(gpu.clone(), &base, options.dtype)?;
    gpu.block_on(compare(options, &runtime, &own, &texts, &out, project))?
}

/// The device whose adapter's name contains `wanted`, or the best one.
async fn open(wanted: Option<&str>) -> Result<Gpu> {
    let Some(wanted) = wanted else { return Ok(Gpu::from_env().await?) };
    let adapters = device::adapters_from_env().await;
    let matches = |name: &str| name.to_lowercase().contains(&wanted.to_lowercase());
    if let Some(adapter) = adapters.iter().find(|adapter| matches(&adapter.get_info().name)) {
        return Ok(Gpu::from_adapter(adapter).await?);
    }
    let names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    if names.is_empty() {
        return Err(format!("no GPU adapter at all: {}", device::NO_ADAPTER_HELP).into());
    }
    Err(format!("no GPU adapter's name contains `{wanted}`; there are: {}", names.join(", ")).into())
}

/// Fine-tunes with both methods, and reports. `own` is the text that the base was trained on.
async fn compare(
    options: &Options,
    runtime: &Runtime,
    own: &Text,
    texts: &[Text],
    out: &Path,
    project: &Path,
) -> Result<()> {
    let started = Instant::now();
    let dropout = Some(Dropout::new(options.dropout));
    let hydra = adapters::config(options.rank, options.experts);
    let hydra = Config { dropout, ..variant::varied(hydra, options.variant, options.top_k) };
    let lora = Config { dropout, ..adapters::comparable_lora(&hydra) };
    for config in [&hydra, &lora] {
        config.layout()?;
    }

    println!("{}", runtime.gpu.describe());
    println!("{hydra}, beside {lora}, on weights in {}", options.dtype);
    if options.only_train {
        let curve = async |config| {
            Ok::<_, Box<dyn std::error::Error>>(train(runtime, "", "", config, texts, options).await?.curve)
        };
        return write_losses(out, &curve(lora).await?, &curve(hydra).await?);
    }
    let base_scores = reproduce_base(runtime, own, texts).await?;

    println!(
        "\nfine-tuning on {} for {} steps of {} bytes; loss in bits per byte",
        texts.iter().map(|text| text.name.as_str()).collect::<Vec<_>>().join(", "),
        options.steps,
        TOKENS
    );
    let top = options.top_k.map(|k| format!(" top {k}")).unwrap_or_default();
    let variant = options.variant.name();
    let names =
        [format!("LoRA r={}", lora.rank), format!("{variant} r={} N={}{top}", hydra.rank, hydra.experts)];
    let width = names.iter().map(String::len).max().unwrap_or(0);
    let fine_tune = async |name: &str, folder: &str, config: Config| -> Result<(Run, Vec<Score>)> {
        let padded = format!("{name:width$}");
        let run = train(runtime, &padded, folder, config, texts, options).await;
        let run = run.map_err(|error| format!("{name}: {error}"))?;
        let scores = evaluate(runtime, Some(&run.adapters), texts).await?;
        Ok((run, scores))
    };
    let (lora_run, lora_scores) = fine_tune(&names[0], "lora", lora).await?;
    let (hydra_run, hydra_scores) = fine_tune(&names[1], "hydralora", hydra).await?;

    let base = Entry { name: "frozen base", parameters: 0, time: None, scores: &base_scores };
    let entry = |name, config, run: &Run, scores| Entry {
        name,
        parameters: adapters::parameter_count(config),
        time: Some(run.time),
        scores,
    };
    let lora = entry(&names[0], &lora, &lora_run, &lora_scores);
    let hydra = entry(&names[1], &hydra, &hydra_run, &hydra_scores);
    let verdict = report::verdict(&lora, &hydra);
    println!("\nheld-out bits per byte (only trainable parameters are counted)");
    print!("{}", report::table(texts, &[base, lora, hydra]));
    println!("{verdict}");

    println!("\nmean gates");
    for line in report::routing(texts, &hydra_scores) {
        println!("  {line}");
    }

    check_reload(runtime, &out.join("adapter"), &hydra_run.adapters, texts, &hydra_scores).await?;
    let (merged, error) = evaluate::merged(runtime, &hydra_run.adapters, &hydra_scores, texts).await?;
    println!(
        "merged into the base, with the mean gate of each expert: {:.3} bits per byte, instead of {:.3}; fc1's outputs \
         differ by {:.1} %",
        evaluate::mean_bits(&merged),
        evaluate::mean_bits(&hydra_scores),
        100.0 * error.difference / error.output
    );
    let curves = [(names[0].as_str(), &lora_run.curve[..]), (names[1].as_str(), &hydra_run.curve[..])];
    plot::losses(&out.join("loss.png"), hydra_run.first, curves)?;
    plot::routing(&out.join("routing.png"), &names[1], texts, &hydra_scores)?;
    write_losses(out, &lora_run.curve, &hydra_run.curve)?;
    println!("\n{}: loss.png, loss.json, routing.png, adapter", shown(out, project));
    println!("{:.0} s in all", started.elapsed().as_secs_f64());
    Ok(())
}

/// Writes each step's loss of both methods.
fn write_losses(out: &Path, lora: &[f64], hydralora: &[f64]) -> Result<()> {
    let losses = serde_json::json!({ "lora": lora, "hydralora": hydralora });
    Ok(std::fs::write(out.join("loss.json"), losses.to_string())?)
}

/// A finished run.
struct Run {
    adapters: Adapters,
    /// The first step that was taken.
    first: u32,
    /// Each step's training loss in bits per byte.
    curve: Vec<f64>,
    time: Duration,
}

/// Trains fresh adapters, or goes on with those that were saved.
async fn train(
    runtime: &Runtime,
    name: &str,
    folder: &str,
    config: Config,
    texts: &[Text],
    options: &Options,
) -> Result<Run> {
    let Options { steps, seed, balance, .. } = *options;
    let until = options.until.unwrap_or(steps).min(steps);
    let mut trainer = Trainer::new(runtime, config, texts, Training { steps, seed, balance }).await?;
    if let Some(parent) = &options.resume {
        trainer.resume(&files::load_training(&trainer.adapters, &parent.join(folder))?)?;
    }
    let first = trainer.step() + 1;
    if first > until {
        return Err(format!("{} of {until} steps were taken already", first - 1).into());
    }
    let progress = Progress::new(name, steps, TOKENS);
    let started = Instant::now();
    for step in first..=until {
        trainer.advance()?;
        if (step - first + 1) % LOOK_EVERY == 0 || step == until {
            progress.show(step, trainer.look().await?);
        }
        if let Some(parent) = options.save.as_ref().filter(|_| step % SAVE_EVERY == 0 || step == until) {
            let folder = parent.join(folder);
            files::save(&runtime.gpu, &trainer.adapters, &folder).await?;
            files::save_training(&trainer.adapters, &trainer.state().await?, &folder)?;
        }
    }
    progress.finish();
    trainer.check().await?;
    Ok(Run { adapters: trainer.adapters, first, curve: trainer.curve, time: started.elapsed() })
}

/// Clusters the texts, and plots and prints what more clusters explain.
fn choose_experts(options: &Options, texts: &[Text], picture: &Path, project: &Path) -> Result<()> {
    let elbow = clusters::elbow(texts, options.seed);
    println!("clusters of the texts' pieces, and the mean squared distance to their centres");
    for (clusters, distance) in (1..).zip(&elbow.distances) {
        let mark = if clusters == elbow.clusters { "  <- the elbow" } else { "" };
        println!("  {clusters:>2}  {distance:.3}{mark}");
    }
    plot::elbow(picture, &elbow)?;
    println!("these texts suggest --experts {}\n\n{}", elbow.clusters, shown(picture, project));
    Ok(())
}

/// Scores the base, and compares the scores with the published ones if there are any.
async fn reproduce_base(runtime: &Runtime, own: &Text, texts: &[Text]) -> Result<Vec<Score>> {
    println!("\nthe frozen base ({} parameters), held-out bits per byte", thousands(runtime.base.parameters));
    let own_scores = evaluate(runtime, None, std::slice::from_ref(own)).await?;
    let scores = evaluate(runtime, None, texts).await?;
    let mut worst: f64 = 0.0;
    let mut rows = Vec::new();
    for (text, score) in std::iter::once(own).chain(texts).zip(own_scores.iter().chain(&scores)) {
        let bits = score.bits_per_byte;
        let mut row = vec![text.name.clone(), format!("{bits:.3}")];
        if let Some(published) = text.published {
            row.push(format!("published {published:>6.3}"));
            worst = worst.max((bits - published).abs());
        }
        rows.push(row);
    }
    print!("{}", report::align(&rows));
    // A NaN must not pass.
    if worst <= TOLERANCE && scores.iter().all(|score| score.bits_per_byte.is_finite()) {
        println!("  published figures reproduced to {TOLERANCE} (largest difference {worst:.4})");
        Ok(scores)
    } else {
        Err(format!("the base differs from its published figures by {worst:.3} bits per byte").into())
    }
}

/// Saves adapters, loads them again, and checks that the loaded ones score the same, bit for bit.
async fn check_reload(
    runtime: &Runtime,
    folder: &Path,
    trained: &Adapters,
    texts: &[Text],
    scores: &[Score],
) -> Result<()> {
    files::save(&runtime.gpu, trained, folder).await?;
    let loaded = files::load(&runtime.gpu, folder)?;
    if evaluate(runtime, Some(&loaded), texts).await? == scores {
        println!("\nsaved, loaded back, and evaluated again: the loss is the same, bit for bit");
        Ok(())
    } else {
        Err(format!("{}: the loaded adapter's loss differs from the trained one's", folder.display()).into())
    }
}

/// The path relative to the project's folder, if it is in there.
fn shown(path: &Path, project: &Path) -> String {
    path.strip_prefix(project).unwrap_or(path).display().to_string()
}
