//! Fine-tunes a `LLaMA` model on your GPU with HydraLoRA, and lets it write: `cargo run --release -p hydralora-llama -- --help`.

mod adapters;
mod backward;
mod config;
mod error;
mod gguf;
mod golden;
mod gradient;
mod huggingface;
mod matrix;
mod model;
mod plot;
mod profile;
mod rope;
mod shader;
mod shape;
mod source;
#[cfg(test)]
mod tests;
mod text;
mod tokenizer;
mod train;
mod weights;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use hydralora::checkpoint::{Checkpoint, Training};
use hydralora::device::Gpu;
use hydralora::{Dropout, Element, Kernels};

use adapters::{Adapters, Projection};
use error::Error;
use golden::Allowed;
use model::{Keep, Model, Use};
use plot::{Curve, Routing};
use profile::Profile;
use shader::Shaders;
use shape::Shape;
use text::{Sampler, Text};
use tokenizer::Tokenizer;
use weights::Weights;

/// LoRA's alpha: the scaling is alpha / rank.
const ALPHA: f32 = 32.0;
/// The most tokens of a generation, and of a step without training.
const CONTEXT: u32 = 1024;
const PROMPT: u32 = 512;
/// The steps after which training is saved, so that it can be resumed.
const SAVED_STEPS: u32 = 20;

/// Fine-tunes a `LLaMA` model on several texts at once, with adapters on the projections of every block.
#[derive(Parser)]
#[command(name = "llama", version)]
struct Options {
    /// The model, a GGUF file or a Hugging Face folder
    #[arg(long, value_name = "PATH", required_unless_present = "shape")]
    model: Option<PathBuf>,
    /// Random numbers in the shape of a known model, to measure with --profile
    #[arg(long, conflicts_with = "model", requires = "profile")]
    shape: Option<Shape>,
    /// A text to train on, a file or a folder of files; can be repeated
    #[arg(long = "text", value_name = "PATH")]
    texts: Vec<PathBuf>,
    /// Training steps, each of a window from every text
    #[arg(long, default_value_t = 60)]
    steps: u32,
    /// The rows of A
    #[arg(long, default_value_t = 4)]
    rank: u32,
    /// The number of matrices B; one is plain LoRA
    #[arg(long, default_value_t = 4)]
    experts: u32,
    /// Train plain LoRA of this rank first, on the same batches
    #[arg(long, value_name = "RANK", value_parser = clap::value_parser!(u32).range(1..))]
    beside: Option<u32>,
    /// The projections with adapters
    #[arg(long, value_delimiter = ',', default_value = "gate,up,down")]
    targets: Vec<Projection>,
    /// How the frozen matrices are stored on the device: f32, f16 or bf16
    #[arg(long, value_name = "TYPE", default_value = "f32", value_parser = dtype)]
    dtype: Element,
    /// Windows of 128 predictions from each text's held-out part
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    windows: u32,
    /// The probability of dropout in training
    #[arg(long, value_name = "P", default_value_t = 0.0)]
    dropout: f32,
    /// Keep only each block's input from the forward pass, and compute the rest again in the backward pass: less memory, more
    /// time, the same numbers
    #[arg(long)]
    gradient_checkpointing: bool,
    /// Save the adapters and the state of training there, every 20 steps and at the end
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Go on from what was saved there
    #[arg(long, value_name = "FOLDER")]
    resume: Option<PathBuf>,
    /// Load adapters from there
    #[arg(long, value_name = "FOLDER")]
    load: Option<PathBuf>,
    /// Let the model go on with this text
    #[arg(long, value_name = "PROMPT")]
    generate: Option<String>,
    /// Tokens to generate
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// Predictions from each text in a step
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    sequence: u32,
    /// Compare the model with a file of what it should compute, and gradients with differences, instead
    #[arg(long, value_name = "FILE", env = "HYDRALORA_LLM_GOLDEN")]
    golden: Option<PathBuf>,
    /// Print what takes how long in a step of four sequences and in generating a token, instead
    #[arg(long)]
    profile: bool,
    /// Where to draw the losses and the routing [default: the project's target/llm]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Seed of the fresh adapters and of the order of the data
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Options {
    fn keep(&self) -> Keep {
        if self.gradient_checkpointing { Keep::Inputs } else { Keep::Activations }
    }
}

fn dtype(text: &str) -> Result<Element, String> {
    let known = [Element::F32, Element::F16, Element::Bf16];
    known.into_iter().find(|element| element.to_string() == text).ok_or_else(|| "f32, f16 or bf16".to_owned())
}

fn main() -> ExitCode {
    env_logger::init();
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, Error> {
    let gpu = pollster::block_on(Gpu::from_env())?;
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    println!("{}", gpu.describe());
    let begin = Instant::now();
    let announce = |config: &config::Config, bytes: u64| {
        println!("{config} take {} in {}", megabytes(bytes), options.dtype);
    };
    if let Some(shape) = options.shape {
        let weights = Weights::random(&gpu, &shape.config(), options.dtype, announce)?;
        profile(&gpu, &kernels, &weights, options)?;
        return Ok(true);
    }
    let path = options.model.as_ref().ok_or(Error::NoModel)?;
    let (weights, tokenizer) = Weights::load(&gpu, path, options.dtype, announce)?;
    println!("loaded in {:.1} s", begin.elapsed().as_secs_f64());
    if options.profile {
        profile(&gpu, &kernels, &weights, options)?;
        return Ok(true);
    }
    let config = &weights.config;
    let shaders = Shaders::compile(&gpu.device, config, weights.element);
    let tokens = options.sequence * options.texts.len() as u32;
    let capacity = if tokens == 0 { PROMPT } else { tokens.max(text::WINDOW) };
    let capacity = capacity.min(Use::most_tokens(&gpu, config));
    let how = Use { capacity, context: CONTEXT.min(config.context), training: None };
    println!("a step of up to {capacity} tokens takes {}", megabytes(how.bytes(config)));
    if let Some(path) = &options.golden {
        let mut model = Model::new(&gpu, &kernels, &weights, &shaders, None, how)?;
        // In half precision twice what was measured: see the README.
        let allowed = match options.dtype {
            Element::F32 => Allowed { each: 2e-3, mean: 1e-4 },
            Element::F16 => Allowed { each: 4e-2, mean: 2e-3 },
            Element::Bf16 => Allowed { each: 1.5e-1, mean: 5e-3 },
        };
        let equal = golden::check(&gpu, &mut model, &tokenizer, path, allowed)?;
        return Ok(gradient::check(&gpu, &kernels, &weights, &shaders, &tokenizer)? && equal);
    }
    plot::load_font()?;
    let texts = options.texts.iter().map(|path| read(path, options.sequence, &tokenizer));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let session = Session {
        gpu: &gpu,
        kernels: &kernels,
        weights: &weights,
        shaders: &shaders,
        tokenizer: &tokenizer,
        texts: &texts,
        options,
    };
    if texts.is_empty() && (options.save.is_some() || options.resume.is_some()) {
        return Err(Error::NoTexts);
    }
    let mut curves = Vec::new();
    if !texts.is_empty()
        && let Some(rank) = options.beside
    {
        curves.extend(session.run(layer(rank, 1, 0.0), how, "lora", false)?);
    }
    let own = layer(options.rank, options.experts, options.dropout);
    curves.extend(session.run(own, how, "hydralora", true)?);
    if !curves.is_empty() {
        plot::losses(&session.picture("loss.png")?, &curves)?;
    }
    Ok(true)
}

/// Prints what takes how long.
fn profile(gpu: &Gpu, kernels: &Kernels, weights: &Weights, options: &Options) -> Result<(), Error> {
    let (sequence, keep) = (options.sequence, options.keep());
    let layer = layer(options.rank, options.experts, options.dropout);
    println!("adapters of rank {} with {} experts on {:?}", layer.rank, layer.experts, options.targets);
    let shaders = Shaders::compile(&gpu.device, &weights.config, weights.element);
    let capacity = sequence * profile::SEQUENCES;
    let how = Use { capacity, context: sequence, training: Some(keep) };
    println!("training takes {} of activations", megabytes(how.bytes(&weights.config)));
    let adapters = Adapters::new(kernels, &weights.config, &options.targets, layer, capacity, options.seed)?;
    Profile { gpu, kernels, weights, shaders: &shaders, sequence, keep }.print(&adapters)
}

/// An adapter like those of every module.
fn layer(rank: u32, experts: u32, dropout: f32) -> hydralora::Config {
    let scaling = hydralora::Config::lora_scaling(ALPHA, rank);
    hydralora::Config { rank, experts, scaling, dropout: Some(Dropout::new(dropout)), ..Default::default() }
}

/// What is trained with, and on.
struct Session<'a> {
    gpu: &'a Gpu,
    kernels: &'a Kernels,
    weights: &'a Weights,
    shaders: &'a Shaders,
    tokenizer: &'a Tokenizer,
    texts: &'a [Text],
    options: &'a Options,
}

impl Session<'_> {
    /// Trains adapters if there are texts, and lets the model write if it shall.
    fn run(
        &self,
        layer: hydralora::Config,
        how: Use,
        name: &str,
        writes: bool,
    ) -> Result<Option<Curve>, Error> {
        let mut curve = None;
        let Self { gpu, kernels, weights, shaders, texts, options, .. } = *self;
        let adapters =
            Adapters::new(kernels, &weights.config, &options.targets, layer, how.capacity, options.seed)?;
        if let Some(folder) = options.load.as_ref().filter(|_| writes) {
            adapters.stack.load(&Checkpoint::open(folder)?)?;
        }
        let mut model = Model::new(gpu, kernels, weights, shaders, Some(&adapters), how)?;
        if !texts.is_empty() {
            let [modules, parameters] = [adapters.stack.pack().places().len() as u64, adapters.parameters()];
            println!(
                "\n{name}, rank {}, {} experts: {modules} modules, {parameters} parameters",
                layer.rank, layer.experts
            );
            self.report(&mut model, &adapters)?;
            self.write(&mut model, writes)?;
            curve = Some(self.train(&adapters, name)?);
            self.report(&mut model, &adapters)?;
        }
        adapters.publish(gpu);
        self.write(&mut model, writes)?;
        Ok(curve)
    }

    /// The path of a picture.
    fn picture(&self, name: &str) -> Result<PathBuf, Error> {
        // The package is in examples/llama.
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
        let folder = self.options.out.clone().unwrap_or_else(|| project.join("target/llm"));
        std::fs::create_dir_all(&folder).map_err(|error| Error::Io { path: folder.clone(), error })?;
        let path = folder.join(name);
        println!("draws {}", path.display());
        Ok(path)
    }

    /// Prints held-out bits per byte.
    fn report(&self, model: &mut Model, adapters: &Adapters) -> Result<(), Error> {
        let Self { gpu, tokenizer, texts, options, .. } = *self;
        adapters.publish(gpu);
        let scores = train::evaluate(gpu, model, texts, tokenizer, options.windows as usize)?;
        let each = texts.iter().zip(&scores).map(|(text, score)| format!("{} {score:.3}", text.name));
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        println!("held-out bits per byte: {}, mean {mean:.3}", each.collect::<Vec<_>>().join(", "));
        Ok(())
    }

    /// Lets the model go on with a text, if there is one.
    fn write(&self, model: &mut Model, writes: bool) -> Result<(), Error> {
        let Self { gpu, tokenizer, options, .. } = *self;
        let Some(prompt) = options.generate.as_ref().filter(|_| writes) else { return Ok(()) };
        let ids = tokenizer.encode(prompt)?;
        let begin = Instant::now();
        let own = golden::generate(gpu, model, &ids, options.tokens)?;
        let rate = own.len() as f64 / begin.elapsed().as_secs_f64();
        println!("{prompt}{}\n({rate:.1} tokens/s)", tokenizer.decode(&own)?);
        Ok(())
    }

    fn train(&self, adapters: &Adapters, name: &str) -> Result<Curve, Error> {
        let Self { gpu, kernels, weights, shaders, texts, options, .. } = *self;
        let tokens = options.sequence * texts.len() as u32;
        let capacity = tokens.max(text::WINDOW);
        let context = capacity.min(weights.config.context);
        let how = Use { capacity, context, training: Some(options.keep()) };
        let bytes = |keep| megabytes(Use { training: Some(keep), ..how }.bytes(&weights.config));
        let [all, inputs] = [Keep::Activations, Keep::Inputs].map(bytes);
        if options.gradient_checkpointing {
            println!(
                "training takes {inputs} of activations instead of {all}, and computes most of them twice"
            );
        } else {
            println!("training takes {all} of activations; --gradient-checkpointing would take {inputs}");
        }
        let mut model = Model::new(gpu, kernels, weights, shaders, Some(adapters), how)?;
        let mut sampler = Sampler::new(texts, options.sequence, options.seed);
        let taken = match &options.resume {
            Some(folder) => adapters.stack.resume(&Training::open(&folder.join(name))?)?,
            None => 0,
        };
        if taken >= options.steps {
            return Err(Error::Trained { taken, steps: options.steps });
        }
        for _ in 0..taken {
            sampler.draw();
        }
        let style =
            indicatif::ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a template");
        let bar = indicatif::ProgressBar::new(options.steps.into()).with_style(style);
        let begin = Instant::now();
        let mut losses = Vec::new();
        for step in taken + 1..=options.steps {
            let loss =
                train::step(gpu, &mut model, adapters, &mut sampler, [step, options.steps], options.seed)?;
            losses.push(loss);
            let rate = f64::from((step - taken) * tokens) / begin.elapsed().as_secs_f64();
            bar.set_position(step.into());
            bar.set_message(format!("loss {loss:.3}, {rate:.0} tokens/s"));
            if bar.is_hidden() {
                println!("step {step}: loss {loss:.4}, {rate:.0} tokens/s");
            }
            if let Some(folder) = options.save.as_ref().filter(|_| step.is_multiple_of(SAVED_STEPS)) {
                self.save(adapters, &folder.join(name), step)?;
            }
        }
        bar.finish();
        if let Some(folder) = &options.save {
            self.save(adapters, &folder.join(name), options.steps)?;
            println!("saved to {}, loaded back, and equal", folder.join(name).display());
        }
        let reports = adapters.reports(gpu)?;
        if !reports.is_empty() {
            let of = |text: &Text| -> Result<Routing, Error> {
                let modules =
                    model.routing(gpu, &reports, text.held_out(options.windows as usize), text::WINDOW)?;
                Ok(Routing { text: text.name.clone(), modules })
            };
            let routings = texts.iter().map(of).collect::<Result<Vec<_>, _>>()?;
            plot::routing(&self.picture("routing.png")?, options.experts as usize, &routings)?;
        }
        Ok((name.to_owned(), taken + 1, losses))
    }

    /// Saves the adapters and the state of training after so many steps, and compares what is loaded back.
    fn save(&self, adapters: &Adapters, folder: &Path, steps: u32) -> Result<(), Error> {
        adapters.stack.save(self.gpu, folder)?;
        adapters.stack.save_training(self.gpu, folder, steps)?;
        let checkpoint = Checkpoint::open(folder)?;
        for module in checkpoint.modules() {
            if checkpoint.adapter(&module.name)? != adapters.stack.read(self.gpu, &module.name)? {
                return Err(Error::Reloaded { module: module.name.clone() });
            }
        }
        Ok(())
    }
}

fn read(path: &Path, window: u32, tokenizer: &Tokenizer) -> Result<Text, Error> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Text::new(&name, &text::read(path)?, window, tokenizer)
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
