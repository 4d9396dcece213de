//! Fine-tunes a `LLaMA` model on your GPU with HydraLoRA, and lets it write: `cargo run --release -p hydralora-llama -- --help`.

mod error;
mod golden;
mod gradient;
mod plot;
mod profile;
mod shape;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use hydralora::checkpoint::{Checkpoint, Training};
use hydralora::device::Gpu;
use hydralora::{Dropout, Element, Kernels};
use hydralora_llama::adapters::{Adapters, Design, Projection};
use hydralora_llama::config::Config;
use hydralora_llama::generate::generate;
use hydralora_llama::model::{Keep, Model, Use};
use hydralora_llama::shader::Shaders;
use hydralora_llama::source::Source;
use hydralora_llama::text::{self, Sampler, Text};
use hydralora_llama::tokenizer::Tokenizer;
use hydralora_llama::train;
use hydralora_llama::weights::Weights;

use error::Error;
use golden::{Allowed, File};
use plot::{Column, Curve};
use profile::Profile;
use shape::Shape;

/// LoRA's alpha: the scaling is alpha / rank.
const ALPHA: f32 = 32.0;
/// The most tokens of a prompt and what follows it, unless `--context` says otherwise.
const CONTEXT: u32 = 2048;
/// The most tokens of a step without training. A longer prompt takes several.
const STEP: u32 = 512;
/// What the model goes on with before and after training, unless `--generate` says otherwise.
const PROMPT: &str = "The parties agree that";
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
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
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
    #[arg(long, value_delimiter = ',', default_value = "gate,up,down", value_parser = projections())]
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
    /// Save the adapters and the state of training there, every 20 steps and at the end [default: `adapters` in --out]
    #[arg(long, value_name = "FOLDER")]
    save: Option<PathBuf>,
    /// Go on from what was saved there
    #[arg(long, value_name = "FOLDER")]
    resume: Option<PathBuf>,
    /// Load adapters from there
    #[arg(long, value_name = "FOLDER")]
    load: Option<PathBuf>,
    /// Let the model go on with this text; while training, before and after [default then: "The parties agree that"]
    #[arg(long, value_name = "PROMPT")]
    generate: Option<String>,
    /// Tokens to generate, unless the model ends its text before
    #[arg(long, default_value_t = 32)]
    tokens: usize,
    /// The most tokens of a prompt and what is generated, for which memory is taken [default: as many as the model was trained
    /// with, but at most 2048]
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    context: Option<u32>,
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

    /// Refuses options that come to nothing.
    fn check(&self) -> Result<(), Error> {
        if !self.texts.is_empty() || self.profile || self.golden.is_some() {
            return Ok(());
        }
        if self.save.is_some() || self.resume.is_some() {
            return Err(Error::NoTexts);
        }
        if self.generate.is_none() {
            return Err(Error::NothingToDo);
        }
        Ok(())
    }

    /// Refuses to go on where no step is left.
    fn check_resumed(&self, name: &str) -> Result<(), Error> {
        let Some(folder) = &self.resume else { return Ok(()) };
        let (taken, steps) = (Training::open(&folder.join(name))?.step(), self.steps);
        if taken < steps { Ok(()) } else { Err(Error::Trained { taken, steps }) }
    }

    /// What the model shall go on with.
    fn prompt(&self) -> Option<&str> {
        self.generate.as_deref().or((!self.texts.is_empty()).then_some(PROMPT))
    }

    /// The folder of what training leaves.
    fn out(&self) -> PathBuf {
        // The package is in examples/llama.
        let project = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap_or(Path::new("."));
        self.out.clone().unwrap_or_else(|| project.join("target/llm"))
    }

    /// Tokens of a step of training.
    fn step_tokens(&self) -> u32 {
        self.sequence.saturating_mul(u32::try_from(self.texts.len()).unwrap_or(u32::MAX))
    }

    /// How the model is to be evaluated, and to write.
    fn running(&self, gpu: &Gpu, config: &Config, golden: Option<&File>) -> Use {
        let [text, sequence] = golden.map_or([1; 2], File::longest);
        let context = self.context.unwrap_or(CONTEXT.min(config.context)).max(sequence);
        if self.texts.is_empty() || golden.is_some() {
            let capacity = STEP.min(Use::most_tokens(gpu, config)).max(text);
            Use { capacity, context, training: None }
        } else {
            Use { training: None, context: context.max(text::WINDOW), ..self.training() }
        }
    }

    /// How the model is to be trained.
    fn training(&self) -> Use {
        Use {
            capacity: self.step_tokens().max(text::WINDOW),
            context: self.sequence.max(text::WINDOW),
            training: Some(self.keep()),
        }
    }
}

/// The projections by their names.
fn projections() -> impl TypedValueParser<Value = Projection> {
    PossibleValuesParser::new(Projection::ALL.map(Projection::short)).map(|name| {
        let known = Projection::ALL.into_iter().find(|own| own.short() == name);
        known.expect("clap has compared it with the same names")
    })
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
    options.check()?;
    if let Some(shape) = options.shape {
        let config = shape.config();
        announce(&config, options);
        return profile(&gpu, &kernels, &config, || Weights::random(&gpu, &config, options.dtype), options);
    }
    // Whatever can be refused is refused before the device's memory is taken.
    let source = Source::open(options.model.as_ref().ok_or(Error::NoModel)?)?;
    let Source { config, tokenizer, .. } = &source;
    announce(config, options);
    let load = || {
        let begin = Instant::now();
        let weights = Weights::load(&gpu, &source, options.dtype)?;
        println!("loaded in {:.1} s", begin.elapsed().as_secs_f64());
        Ok(weights)
    };
    if options.profile {
        return profile(&gpu, &kernels, config, load, options);
    }
    let golden = options.golden.as_deref().map(|path| File::open(path, config.vocabulary)).transpose()?;
    let how = options.running(&gpu, config, golden.as_ref());
    how.check(&gpu, config)?;
    println!(
        "up to {} tokens at a time, in sequences of up to {}, take {}",
        how.capacity,
        how.context,
        megabytes(how.bytes(config))
    );
    if let Some(golden) = &golden {
        return compare(&gpu, &kernels, tokenizer, &load()?, how, golden);
    }
    let prompt = match options.prompt() {
        Some(text) => {
            let ids = tokenizer.prompt(text)?;
            if ids.is_empty() {
                return Err(hydralora_llama::error::Error::NoTokens.into());
            }
            how.check_sequence((ids.len() as u64).saturating_add(options.tokens as u64))?;
            Some((text, ids))
        }
        None => None,
    };
    let texts = options.texts.iter().map(|path| read(path, options.sequence, tokenizer));
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    let own = layer(options.rank, options.experts, options.dropout);
    let beside =
        options.beside.filter(|_| !texts.is_empty()).map(|rank| ("lora", layer(rank, 1, options.dropout)));
    // Fresh adapters would change nothing of what is written.
    let adapted = !texts.is_empty() || options.load.is_some();
    let layers: Vec<_> = beside.into_iter().chain(adapted.then_some(("hydralora", own))).collect();
    let design = |layer| Design { targets: &options.targets, layer, capacity: how.capacity };
    for (name, layer) in &layers {
        let bytes = design(*layer).bytes(&kernels, config)?;
        println!("{name} and its optimiser take {}", megabytes(bytes));
    }
    for (name, _) in &layers {
        options.check_resumed(name)?;
    }
    if !texts.is_empty() {
        options.training().check(&gpu, config)?;
        announce_training(config, options);
    }
    let adapter = options.load.as_deref().map(Checkpoint::open).transpose()?;
    plot::load_font()?;
    let weights = load()?;
    let shaders = gpu.block_on(Shaders::compile(&gpu.device, config, weights.element))??;
    let session = Session {
        gpu: &gpu,
        kernels: &kernels,
        weights: &weights,
        shaders: &shaders,
        tokenizer,
        texts: &texts,
        adapter,
        prompt,
        how,
        options,
    };
    if layers.is_empty() {
        session.write(&mut session.model(None, how)?)?;
    }
    let mut curves = Vec::new();
    for (name, layer) in layers {
        curves.extend(session.run(&design(layer), name)?);
    }
    if !curves.is_empty() {
        plot::losses(&session.picture("loss.png")?, &curves)?;
    }
    Ok(true)
}

/// Compares a model with a file of what it should compute, and gradients with differences.
fn compare(
    gpu: &Gpu,
    kernels: &Kernels,
    tokenizer: &Tokenizer,
    weights: &Weights,
    how: Use,
    golden: &File,
) -> Result<bool, Error> {
    let shaders = gpu.block_on(Shaders::compile(&gpu.device, &weights.config, weights.element))??;
    let mut model = gpu.block_on(Model::new(gpu, kernels, weights, &shaders, None, how))??;
    // In half precision twice what was measured: see the README.
    let allowed = match weights.element {
        Element::F32 => Allowed { each: 2e-3, mean: 1e-4 },
        Element::F16 => Allowed { each: 4e-2, mean: 2e-3 },
        Element::Bf16 => Allowed { each: 1.5e-1, mean: 5e-3 },
    };
    let equal = golden::check(gpu, &mut model, tokenizer, golden, allowed)?;
    Ok(gradient::check(gpu, kernels, weights, &shaders, tokenizer)? && equal)
}

/// Says what the weights take.
fn announce(config: &Config, options: &Options) {
    let bytes = config.bytes(options.dtype.bytes());
    println!("{config} take {} in {}", megabytes(bytes), options.dtype);
}

/// Says what the activations of training take, either way.
fn announce_training(config: &Config, options: &Options) {
    let bytes = |keep| megabytes(Use { training: Some(keep), ..options.training() }.bytes(config));
    let [all, inputs] = [Keep::Activations, Keep::Inputs].map(bytes);
    if options.gradient_checkpointing {
        println!("training takes {inputs} of activations instead of {all}, and computes most of them twice");
    } else {
        println!("training takes {all} of activations; --gradient-checkpointing would take {inputs}");
    }
}

/// Prints what takes how long.
fn profile(
    gpu: &Gpu,
    kernels: &Kernels,
    config: &Config,
    load: impl FnOnce() -> Result<Weights, hydralora_llama::error::Error>,
    options: &Options,
) -> Result<bool, Error> {
    let (sequence, keep) = (options.sequence, options.keep());
    let layer = layer(options.rank, options.experts, options.dropout);
    let capacity = sequence.saturating_mul(profile::SEQUENCES);
    let how = Use { capacity, context: sequence, training: Some(keep) };
    how.check(gpu, config)?;
    let design = Design { targets: &options.targets, layer, capacity };
    println!(
        "adapters of rank {} with {} experts on {} take {}, the activations of training {}",
        layer.rank,
        layer.experts,
        options.targets.iter().map(|own| own.short()).collect::<Vec<_>>().join(", "),
        megabytes(design.bytes(kernels, config)?),
        megabytes(how.bytes(config))
    );
    let weights = load()?;
    let shaders = gpu.block_on(Shaders::compile(&gpu.device, config, weights.element))??;
    let adapters = Adapters::new(kernels, config, &design, options.seed)?;
    Profile { gpu, kernels, weights: &weights, shaders: &shaders, sequence, keep }.print(&adapters)?;
    Ok(true)
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
    /// What adapters begin with, if not as fresh ones.
    adapter: Option<Checkpoint>,
    /// What the model shall go on with, and its tokens.
    prompt: Option<(&'a str, Vec<u32>)>,
    how: Use,
    options: &'a Options,
}

impl Session<'_> {
    /// Trains adapters if there are texts, and lets the model write.
    fn run(&self, design: &Design<'_>, name: &str) -> Result<Option<Curve>, Error> {
        let Self { gpu, kernels, weights, texts, options, .. } = *self;
        let adapters = Adapters::new(kernels, &weights.config, design, options.seed)?;
        if let Some(adapter) = &self.adapter {
            adapters.stack.load(adapter)?;
        }
        let mut model = self.model(Some(&adapters), self.how)?;
        let mut curve = None;
        if !texts.is_empty() {
            let [modules, parameters] = [adapters.stack.pack().places().len() as u64, adapters.parameters()];
            let hydralora::Config { rank, experts, .. } = design.layer;
            println!("\n{name}, rank {rank}, {experts} experts: {modules} modules, {parameters} parameters");
            self.report(&mut model, &adapters)?;
            self.write(&mut model)?;
            curve = Some(self.train(&adapters, name)?);
            self.report(&mut model, &adapters)?;
        }
        adapters.publish(gpu);
        self.write(&mut model)?;
        Ok(curve)
    }

    fn model(&self, adapters: Option<&Adapters>, how: Use) -> Result<Model, Error> {
        let Self { gpu, kernels, weights, shaders, .. } = *self;
        Ok(gpu.block_on(Model::new(gpu, kernels, weights, shaders, adapters, how))??)
    }

    /// The path of a picture.
    fn picture(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.options.out();
        std::fs::create_dir_all(&folder).map_err(|error| Error::Io { path: folder.clone(), error })?;
        let path = folder.join(name);
        println!("draws {}", path.display());
        Ok(path)
    }

    /// Prints held-out bits per byte.
    fn report(&self, model: &mut Model, adapters: &Adapters) -> Result<(), Error> {
        let Self { gpu, tokenizer, texts, options, .. } = *self;
        adapters.publish(gpu);
        let scores =
            gpu.block_on(train::evaluate(gpu, model, texts, tokenizer, options.windows as usize))??;
        let each = texts.iter().zip(&scores).map(|(text, score)| format!("{} {score:.3}", text.name));
        let mean = scores.iter().sum::<f64>() / scores.len() as f64;
        println!("held-out bits per byte: {}, mean {mean:.3}", each.collect::<Vec<_>>().join(", "));
        Ok(())
    }

    /// Lets the model go on with a text, if there is one, and prints it as it comes.
    fn write(&self, model: &mut Model) -> Result<(), Error> {
        let Self { gpu, tokenizer, options, .. } = *self;
        let Some((text, ids)) = &self.prompt else { return Ok(()) };
        let show = |text: &str| {
            print!("{text}");
            // Where nobody reads it any more, nothing is to be done about it.
            let _ = std::io::stdout().flush();
        };
        show(text);
        let begin = Instant::now();
        let (mut stream, mut count, mut decoded) = (tokenizer.stream(), 0, Ok(()));
        let take = |token| {
            count += 1;
            match stream.push(token) {
                Ok(more) => show(&more),
                Err(error) => decoded = Err(error),
            }
        };
        gpu.block_on(generate(gpu, model, ids, options.tokens, tokenizer.ends(), take))??;
        decoded?;
        let rate = f64::from(count) / begin.elapsed().as_secs_f64();
        let ended = if (count as usize) < options.tokens { ", and the text has ended" } else { "" };
        println!("\n({count} tokens, {rate:.1} tokens/s{ended})");
        Ok(())
    }

    fn train(&self, adapters: &Adapters, name: &str) -> Result<Curve, Error> {
        let Self { gpu, texts, options, .. } = *self;
        let tokens = options.step_tokens();
        let mut model = self.model(Some(adapters), options.training())?;
        let mut sampler = Sampler::new(texts, options.sequence, options.seed);
        let taken = match &options.resume {
            Some(folder) => adapters.stack.resume(&Training::open(&folder.join(name))?)?,
            None => 0,
        };
        for _ in 0..taken {
            sampler.draw();
        }
        let style =
            indicatif::ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a template");
        let bar = indicatif::ProgressBar::new(options.steps.into()).with_style(style);
        let folder = options.save.clone().unwrap_or_else(|| options.out().join("adapters")).join(name);
        let begin = Instant::now();
        let mut losses = Vec::new();
        for step in taken + 1..=options.steps {
            let loss =
                train::step(gpu, &mut model, adapters, &mut sampler, [step, options.steps], options.seed);
            let loss = gpu.block_on(loss)??;
            losses.push(loss);
            let rate = f64::from((step - taken) * tokens) / begin.elapsed().as_secs_f64();
            bar.set_position(step.into());
            bar.set_message(format!("loss {loss:.3}, {rate:.0} tokens/s"));
            if bar.is_hidden() {
                println!("step {step}: loss {loss:.4}, {rate:.0} tokens/s");
            }
            if step.is_multiple_of(SAVED_STEPS) || step == options.steps {
                self.save(adapters, &folder, step)?;
            }
        }
        bar.finish();
        println!("saved to {}, loaded back, and equal", folder.display());
        let reports = adapters.reports(gpu)?;
        if !reports.is_empty() {
            let of = |text: &Text| -> Result<Column, Error> {
                let held_out = text.held_out(options.windows as usize);
                let modules = gpu.block_on(model.routing(gpu, &reports, held_out, text::WINDOW))??;
                Ok(Column { text: text.name.clone(), modules })
            };
            let columns = texts.iter().map(of).collect::<Result<Vec<_>, _>>()?;
            plot::routing(&self.picture("routing.png")?, &columns)?;
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
    Ok(Text::new(&name, &text::read(path)?, window, tokenizer)?)
}

fn megabytes(bytes: u64) -> String {
    let megabytes = bytes as f64 / 1e6;
    if megabytes < 10.0 { format!("{megabytes:.1} MB") } else { format!("{megabytes:.0} MB") }
}
