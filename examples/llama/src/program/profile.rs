//! What takes how long: a step of training and a token that is generated, by kind of dispatch.

use std::time::{Duration, Instant};

use hydralora::device::Gpu;
use hydralora::stopwatch::{Clock, Stopwatch};
use hydralora::{Kernels, wgpu};
use hydralora_llama::adapters::Adapters;
use hydralora_llama::model::{Keep, Model, Span, Step, Use};
use hydralora_llama::shader::{Kind, Shaders};
use hydralora_llama::weights::Weights;

use crate::error::Error;

/// The sequences of a step.
pub const SEQUENCES: u32 = 4;
/// How long is measured at least, unless once takes longer.
const ENOUGH: Duration = Duration::from_secs(1);

/// What is measured with, and on.
pub struct Profile<'a> {
    pub gpu: &'a Gpu,
    pub kernels: &'a Kernels,
    pub weights: &'a Weights,
    pub shaders: &'a Shaders,
    /// The tokens of a sequence, and of the prompt.
    pub sequence: u32,
    pub keep: Keep,
}

/// One column of the table.
#[derive(Default)]
struct Column {
    /// By kind, each alone.
    kinds: [Duration; 4],
    optimiser: Duration,
    /// Everything in one pass.
    whole: Duration,
    /// By the host's clock, with what the host does and reads back.
    tokens_per_second: f64,
}

const KINDS: [(Kind, &str); 4] = [
    (Kind::Frozen, "frozen products"),
    (Kind::Adapters, "adapters"),
    (Kind::Attention, "attention"),
    (Kind::Rest, "norms and the rest"),
];

impl Profile<'_> {
    /// Measures, and prints a table.
    pub fn print(&self, adapters: &Adapters) -> Result<(), Error> {
        let [step, token] = [self.training(Some(adapters))?, self.writing(Some(adapters))?];
        let [step_without, token_without] = [self.training(None)?, self.writing(None)?];
        let clock = match Stopwatch::new(self.gpu)?.clock() {
            Clock::Device => "device time",
            Clock::Wall => "wall-clock time",
        };
        let tokens = self.sequence * SEQUENCES;
        println!(
            "\n| {clock} | a step of {tokens} tokens | share | a token after {} | share |",
            self.sequence
        );
        println!("|---|---:|---:|---:|---:|");
        let row = |name: &str, times: [Duration; 2]| {
            let sums = [&step, &token].map(|column| column.kinds.iter().sum::<Duration>() + column.optimiser);
            let share = |at: usize| match times[at] {
                // No token is generated with an optimiser.
                Duration::ZERO => " | ".to_owned(),
                time => {
                    let share = 100.0 * time.as_secs_f64() / sums[at].as_secs_f64();
                    format!("{} | {share:.1} %", milliseconds(time))
                }
            };
            println!("| {name} | {} | {} |", share(0), share(1));
        };
        for (at, (_, name)) in KINDS.iter().enumerate() {
            row(name, [step.kinds[at], token.kinds[at]]);
        }
        row("optimiser", [step.optimiser, token.optimiser]);
        let whole = |name: &str, [step, token]: [&Column; 2]| {
            println!("| {name} | {} | | {} | |", milliseconds(step.whole), milliseconds(token.whole));
        };
        whole("all in one pass", [&step, &token]);
        whole("without adapters", [&step_without, &token_without]);
        let rates = |name: &str, [step, token]: [&Column; 2]| {
            println!("| {name} | {:.1} | | {:.1} | |", step.tokens_per_second, token.tokens_per_second);
        };
        rates("tokens/s", [&step, &token]);
        rates("tokens/s without adapters", [&step_without, &token_without]);
        Ok(())
    }

    /// Tokens in no order.
    fn tokens(&self, count: u32) -> Vec<u32> {
        (0..count).map(|at| at.wrapping_mul(2_654_435_761) % self.weights.config.vocabulary).collect()
    }

    fn model(&self, adapters: Option<&Adapters>, how: Use) -> Result<Model, Error> {
        let Self { gpu, kernels, weights, shaders, .. } = *self;
        Ok(gpu.block_on(Model::new(gpu, kernels, weights, shaders, adapters, how))??)
    }

    /// A step of training; without adapters, forward and backward through the frozen model.
    fn training(&self, adapters: Option<&Adapters>) -> Result<Column, Error> {
        let Self { gpu, sequence, .. } = *self;
        let count = sequence * SEQUENCES;
        let how = Use { capacity: count, context: sequence, training: Some(self.keep) };
        let mut model = self.model(adapters, how)?;
        let (inputs, targets) = (self.tokens(count), self.tokens(count + 1));
        let optimiser = adapters.and_then(|adapters| adapters.stack.optimiser());
        if let Some(optimiser) = optimiser {
            optimiser.set_step(&gpu.queue, 1, 1e-6)?;
        }
        let mut step = || -> Result<(), Error> {
            model.train(gpu, [&inputs, &targets[1..]], sequence, optimiser)?;
            gpu.read_part_blocking(model.loss_buffer(), 0..count as usize)?;
            Ok(())
        };
        // The first is slower: drivers compile then, and clocks are low.
        step()?;
        let tokens_per_second = f64::from(count) * rate(&mut step)?;
        let encode_optimiser = |pass: &mut wgpu::ComputePass<'_>| {
            if let Some(optimiser) = optimiser {
                optimiser.encode(pass);
            }
        };
        let stopwatch = Stopwatch::new(gpu)?;
        let mut column =
            measure(&stopwatch, || model.training_steps(), adapters.is_some(), encode_optimiser)?;
        if optimiser.is_some() {
            column.optimiser = fastest(&stopwatch, |pass| {
                encode_optimiser(pass);
                Ok(())
            })?;
        }
        Ok(Column { tokens_per_second, ..column })
    }

    /// A token that is generated after a prompt.
    fn writing(&self, adapters: Option<&Adapters>) -> Result<Column, Error> {
        let Self { gpu, sequence, .. } = *self;
        let context = (2 * sequence).min(self.weights.config.context);
        // Adapters are bound for as many tokens as they are trained with.
        let capacity = sequence * SEQUENCES;
        let mut model = self.model(adapters, Use { capacity, context, training: None })?;
        let prompt = self.tokens(sequence);
        gpu.block_on(model.logits(gpu, &prompt, 0))??;
        // Always the one after the prompt: a later one has more to look at.
        let mut next = || -> Result<(), Error> {
            gpu.block_on(model.logits(gpu, &prompt[..1], sequence.min(context - 1)))??;
            Ok(())
        };
        next()?;
        let tokens_per_second = rate(&mut next)?;
        let stopwatch = Stopwatch::new(gpu)?;
        let column = measure(&stopwatch, || model.logits_steps(), adapters.is_some(), |_| {})?;
        Ok(Column { tokens_per_second, ..column })
    }
}

/// The times of some steps, and of what follows them.
fn measure<'a, I: Iterator<Item = (&'a Step, &'a Span)>>(
    stopwatch: &Stopwatch,
    steps: impl Fn() -> I,
    kinds: bool,
    after: impl Fn(&mut wgpu::ComputePass<'_>),
) -> Result<Column, Error> {
    let encode = |pass: &mut wgpu::ComputePass<'_>, only: Option<Kind>| {
        let wanted = |(step, _): &(&Step, &Span)| only.is_none_or(|kind| step.kind() == kind);
        steps().filter(wanted).try_for_each(|(step, span)| step.encode(pass, span))
    };
    let whole = |pass: &mut wgpu::ComputePass<'_>| {
        encode(pass, None)?;
        after(pass);
        Ok(())
    };
    stopwatch.warm_up(whole)?;
    let mut column = Column { whole: fastest(stopwatch, whole)?, ..Default::default() };
    if kinds {
        for (time, (kind, _)) in column.kinds.iter_mut().zip(KINDS) {
            *time = fastest(stopwatch, |pass| encode(pass, Some(kind)))?;
        }
    }
    Ok(column)
}

/// The shortest of several times.
fn fastest(
    stopwatch: &Stopwatch,
    encode: impl Fn(&mut wgpu::ComputePass<'_>) -> Result<(), hydralora::Error>,
) -> Result<Duration, Error> {
    let begin = Instant::now();
    let mut best = stopwatch.time(&encode)?;
    while begin.elapsed() < ENOUGH {
        best = best.min(stopwatch.time(&encode)?);
    }
    Ok(best)
}

/// How many times a second something can be done, one after the other.
fn rate(mut once: impl FnMut() -> Result<(), Error>) -> Result<f64, Error> {
    let begin = Instant::now();
    let mut count = 0.0;
    while count == 0.0 || begin.elapsed() < ENOUGH {
        once()?;
        count += 1.0;
    }
    Ok(count / begin.elapsed().as_secs_f64())
}

fn milliseconds(time: Duration) -> String {
    let milliseconds = 1e3 * time.as_secs_f64();
    match milliseconds {
        100.0.. => format!("{milliseconds:.0} ms"),
        10.0.. => format!("{milliseconds:.1} ms"),
        1.0.. => format!("{milliseconds:.2} ms"),
        _ => format!("{milliseconds:.3} ms"),
    }
}
