//! The training page: the demo of `examples/finetune`, live. HydraLoRA and plain LoRA take turns, so that their curves
//! grow side by side.

use std::cell::Cell;
use std::time::Duration;

use hydralora::checkpoint::Checkpoint;
use hydralora::device::Gpu;
use hydralora::{Config, Element};
use hydralora_finetune::adapters::{self, Adapters};
use hydralora_finetune::corpus::Text;
use hydralora_finetune::evaluate::{Evaluator, Score, evaluate};
use hydralora_finetune::runtime::Runtime;
use hydralora_finetune::train::{LOOK_EVERY, Trainer, Training};
use js_sys::{Array, Function, Object, Reflect, Uint8Array};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast as _, JsValue};
use web_time::Instant;

use crate::device::{describe, open};
use crate::failure::Failure;
use crate::value::{self, Report};

/// The time between two reports of the losses, as far as steps allow.
const BEAT: Duration = Duration::from_millis(250);
/// Steps between two looks at the routing, and held-out windows of each text that it is seen on.
const ROUTE_EVERY: u32 = 20;
const ROUTED_WINDOWS: usize = 128;

thread_local! {
    /// Whether training is to end with what it has. The worker has one thread, and one training at a time.
    static STOPPED: Cell<bool> = const { Cell::new(false) };
}

/// What the page asks for.
#[derive(Deserialize)]
struct Options {
    steps: u32,
    rank: u32,
    experts: u32,
    seed: u32,
    /// Held-out windows of each text that are scored, the first ones, if not all.
    windows: Option<usize>,
}

/// What the page hears.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", tag = "event")]
enum Event<'a> {
    /// What runs where, before anything else.
    Began { device: String, names: [String; 2], parameters: [u64; 2] },
    /// The base's held-out figures.
    Base { scores: Scores },
    /// The losses of both since the last time, plain LoRA first, in bits per byte.
    Losses { step: u32, losses: [&'a [f64]; 2] },
    /// Where HydraLoRA's router sends each text now.
    Routing { step: u32, scores: Scores },
}

/// What came of it.
#[derive(Serialize)]
struct Outcome {
    /// The steps that were taken, fewer than asked for if it was stopped.
    steps: u32,
    seconds: f64,
    curves: [Vec<f64>; 2],
    scores: [Scores; 2],
}

#[derive(Serialize)]
struct Scores(Vec<OfText>);

/// A text's held-out bits per byte, and its mean gates.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct OfText {
    text: String,
    bits_per_byte: f64,
    gates: [Vec<f64>; 2],
}

impl Scores {
    fn new(texts: &[Text], scores: Vec<Score>) -> Self {
        let of_text = |(text, Score { bits_per_byte, gates }): (&Text, Score)| OfText {
            text: text.name.clone(),
            bits_per_byte,
            gates,
        };
        Self(texts.iter().zip(scores).map(of_text).collect())
    }
}

/// Trains on `texts`, pairs of a name and bytes, and returns what came of it, with the trained HydraLoRA adapter's file
/// as `adapter`. `base` is the frozen base's file.
#[wasm_bindgen]
pub async fn train(
    options: JsValue,
    base: Uint8Array,
    texts: Array,
    report: Function,
) -> Result<JsValue, JsValue> {
    STOPPED.set(false);
    let options: Options = value::from(&options)?;
    let report = Report(report);
    let texts = read(&texts)?;
    let gpu = open(&report).await?;
    let outcome = compare(&options, &gpu, &base.to_vec(), &texts, &report).await;
    // Browsers free buffers when they please; a destroyed device's are freed now.
    gpu.device.destroy();
    let (outcome, adapter) = outcome.map_err(Failure::from)?;
    with(value::of(&outcome), "adapter", &Uint8Array::from(&adapter[..]))
}

/// Ends training after the next look, with what it has.
#[wasm_bindgen]
pub fn stop() {
    STOPPED.set(true);
}

/// The held-out figures of an adapter that the page has loaded from a file.
#[wasm_bindgen]
pub async fn score(
    name: String,
    file: Uint8Array,
    base: Uint8Array,
    texts: Array,
    windows: Option<u32>,
    report: Function,
) -> Result<JsValue, JsValue> {
    // Before a device is opened, so that a file that is no adapter is told at once.
    let checkpoint = Checkpoint::from_bytes(&name, file.to_vec()).map_err(Failure::from)?;
    let texts = sampled(&read(&texts)?, windows.map_or(usize::MAX, |windows| windows as usize));
    let gpu = open(&Report(report)).await?;
    let scored = async {
        let runtime = Runtime::new(gpu.clone(), &base.to_vec(), Element::F32)?;
        let adapters = Adapters::load(&gpu, &checkpoint)?;
        let scores = evaluate(&runtime, Some(&adapters), &texts).await?;
        Ok::<_, Box<dyn std::error::Error>>((adapters.config.to_string(), Scores::new(&texts, scores)))
    };
    let scored = scored.await;
    gpu.device.destroy();
    Ok(value::of(&scored.map_err(Failure::from)?))
}

/// Trains both, and gives what came of it with the adapter's file.
async fn compare(
    options: &Options,
    gpu: &Gpu,
    base: &[u8],
    texts: &[Text],
    report: &Report,
) -> hydralora_finetune::Result<(Outcome, Vec<u8>)> {
    let Options { steps, rank, experts, seed, windows } = *options;
    let held_out = sampled(texts, windows.unwrap_or(usize::MAX));
    let hydra = adapters::config(rank, experts);
    let lora = adapters::comparable_lora(&hydra);
    let name = |config: &Config, what: &str| match config.experts {
        1 => format!("LoRA r={}", config.rank),
        experts => format!("{what} r={} N={experts}", config.rank),
    };
    report.tell(&Event::Began {
        device: describe(gpu),
        names: [name(&lora, "LoRA"), name(&hydra, "HydraLoRA")],
        parameters: [&lora, &hydra].map(adapters::parameter_count),
    });
    let runtime = Runtime::new(gpu.clone(), base, Element::F32)?;
    let of_base = evaluate(&runtime, None, &held_out).await?;
    report.tell(&Event::Base { scores: Scores::new(texts, of_base) });

    let training = Training { steps, seed: seed.into(), balance: 0.0 };
    let mut lora = Trainer::new(&runtime, lora, texts, training).await?;
    let mut hydra = Trainer::new(&runtime, hydra, texts, training).await?;
    let samples = sampled(texts, ROUTED_WINDOWS);
    let mut evaluator = Evaluator::prepare(&runtime, Some(&hydra.adapters)).await?;
    let begin = Instant::now();
    let (mut between, mut routed) = (1, 0);
    while hydra.step() < steps && !STOPPED.get() {
        let beat = Instant::now();
        let before = hydra.step();
        for trainer in [&mut lora, &mut hydra] {
            for _ in before..steps.min(before + between) {
                trainer.advance()?;
            }
            trainer.look().await?;
        }
        let step = hydra.step();
        let of = |trainer: &Trainer<'_>| trainer.curve[before as usize..].to_vec();
        report.tell(&Event::Losses { step, losses: [&of(&lora), &of(&hydra)] });
        // As many steps as fit a beat.
        let rate = f64::from(step - before) / beat.elapsed().as_secs_f64().max(1e-3);
        between = ((rate * BEAT.as_secs_f64()) as u32).clamp(1, LOOK_EVERY);
        if step >= routed + ROUTE_EVERY || step == steps {
            routed = step;
            let scores = evaluator.score(&samples).await?;
            report.tell(&Event::Routing { step, scores: Scores::new(texts, scores) });
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    for trainer in [&lora, &hydra] {
        trainer.check().await?;
    }
    let scores = [
        evaluate(&runtime, Some(&lora.adapters), &held_out).await?,
        evaluate(&runtime, Some(&hydra.adapters), &held_out).await?,
    ];
    let adapter = hydra.adapters.to_bytes(gpu).await?;
    let outcome = Outcome {
        steps: hydra.step(),
        seconds,
        curves: [lora.curve, hydra.curve],
        scores: scores.map(|scores| Scores::new(texts, scores)),
    };
    Ok((outcome, adapter))
}

/// The page's texts: pairs of a name and bytes.
fn read(texts: &Array) -> Result<Vec<Text>, Failure> {
    let text = |pair: JsValue| {
        let pair = Array::from(&pair);
        let name = pair.get(0).as_string().unwrap_or_default();
        let bytes = pair.get(1).dyn_into::<Uint8Array>().map(|bytes| bytes.to_vec()).unwrap_or_default();
        Text::new(&name, bytes).map_err(Failure::from)
    };
    texts.iter().map(text).collect()
}

/// The texts with so many held-out windows each.
fn sampled(texts: &[Text], windows: usize) -> Vec<Text> {
    texts.iter().map(|text| text.sample(windows)).collect()
}

/// The same object with one value more.
fn with(object: JsValue, name: &str, value: &JsValue) -> Result<JsValue, JsValue> {
    Reflect::set(object.unchecked_ref::<Object>(), &name.into(), value)?;
    Ok(object)
}
