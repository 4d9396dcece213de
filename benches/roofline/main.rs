//! How near the kernels come to what the device can do, and to what else could compute the same:
//! `cargo xtask roofline`.

mod limits;
mod options;
mod plot;
mod report;
mod safety;

use std::error::Error;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use clap::{Parser, ValueEnum};
use hydralora::device::Gpu;
use hydralora::stopwatch::Stopwatch;
use hydralora::tuner::Tuner;
use hydralora::{
    Choice, Config, DeviceProfile, Element, Kernels, LinearChoice, LinearWay, Operation, Work, WriteMode,
};
use hydralora_benches::contest::{self, Contest, Failure, Ours, Setting, Task};
use hydralora_benches::frozen::{self, Frozen};
use hydralora_benches::grid::{self, Shape};
use hydralora_benches::kernel::Kernel;
use hydralora_benches::step::{self, StepCost};
use limits::{Copier, Limits};
use report::{ContestRow, EntrantRow, KernelRow, Report, StepRow, TuningRow};

/// Measure the device's copy bandwidth and multiply-add rate, each kernel against them, and the
/// alternatives in turn with the library. Choose among several adapters with `WGPU_ADAPTER_NAME`.
#[derive(Parser)]
#[command(name = "roofline")]
struct Options {
    /// A shape to measure instead of a grid: `TOKENS,D_IN,D_OUT,RANK,EXPERTS`; can be repeated
    #[arg(long, value_name = "SHAPE")]
    shape: Vec<Shape>,
    /// The shapes to measure; the full grid takes hours on a software driver
    #[arg(long, value_enum, default_value_t = Grid::Small)]
    grid: Grid,
    /// Elements of the activations; alternatives run in f32
    #[arg(long, value_name = "TYPE", value_delimiter = ',', value_parser = parse_element, default_values = ["f32", "f16", "bf16"])]
    element: Vec<Element>,
    /// Runs of each alternative in turn with the library, at least one
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: NonZeroUsize,
    /// What to measure besides the kernels
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["alternatives", "linear", "step"])]
    also: Vec<Also>,
    /// Where to write report.json, report.md, roofline.png and tuning.json
    #[arg(long, value_name = "FOLDER", default_value = "target/roofline")]
    out: PathBuf,
    /// Cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Grid {
    /// From one shape in each direction: tokens, widths, rank and experts
    Small,
    /// Every combination that people train
    Full,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Also {
    /// The chain and the concatenated form, in turn with the library
    Alternatives,
    /// How far the planner's own choice is from the best
    Tuning,
    /// The frozen layer
    Linear,
    /// What wgpu's checks in shaders cost
    Safety,
    /// What options of a layer cost: gates, dropout, masks
    Options,
    /// The host's time for a training step of a whole model
    Step,
}

/// Up to so many tokens, a dispatch takes longer to start than memory takes for its bytes, and a copy of the same
/// size says more than bandwidth does.
const MOST_COPIED_TOKENS: u32 = 16;

fn parse_element(text: &str) -> Result<Element, String> {
    [Element::F32, Element::F16, Element::Bf16]
        .into_iter()
        .find(|element| element.to_string() == text)
        .ok_or_else(|| "f32, f16 or bf16".to_owned())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    hydralora_benches::enter_project()?;
    let gpu = pollster::block_on(Gpu::from_env())?;
    let stopwatch = Stopwatch::new(&gpu)?;
    let mut tuner = Tuner::new(&gpu.device);
    // Nothing depends on it in software.
    if !DeviceProfile::of(&gpu.device).software {
        tuner.calibrate(&gpu)?;
    }
    let kernels = Kernels::with_profile(&gpu.device, &gpu.queue, tuner.profile(&gpu.device));
    let mut copier = Copier::new(&gpu, &stopwatch)?;
    let limits = Limits::measure(&mut copier)?;
    println!(
        "{}, {}: copy {:.1} GB/s, multiply-add {:.0} GFLOP/s",
        gpu.describe(),
        stopwatch.clock(),
        limits.bandwidth / 1e9,
        limits.arithmetic / 1e9
    );
    let mut report = Report {
        device: gpu.describe(),
        date: time::OffsetDateTime::now_utc().date().to_string(),
        clock: stopwatch.clock().to_string(),
        limits,
        calibration: tuner.calibration().copied(),
        kernels: Vec::new(),
        contests: Vec::new(),
        tunings: Vec::new(),
        safety: Vec::new(),
        options: Vec::new(),
        step: None,
        refused: Vec::new(),
    };
    let shapes = match options.grid {
        _ if !options.shape.is_empty() => options.shape.clone(),
        Grid::Small if kernels.profile().software => grid::small(),
        Grid::Small => grid::small().into_iter().chain([grid::ON_GPUS]).collect(),
        Grid::Full => grid::full(),
    };
    let also = |part| options.also.contains(&part);
    let measure = Measure { gpu: &gpu, stopwatch: &stopwatch, kernels: &kernels, options };
    let mut wrong = false;
    for shape in &shapes {
        for &element in &options.element {
            if let Err(failure) = measure.shape(shape, element, &mut copier, &mut tuner, &mut report) {
                eprintln!("{shape} {element}: {failure}");
                report.refused.push(format!("{shape} {element}: {failure}"));
                // A device may be too small for a part of the grid, and half precision has no odd rows; but
                // what was asked for is measured.
                let left_out = options.shape.is_empty() && failure.is_refusal();
                let half_rows = matches!(failure, Failure::Library(hydralora::Error::HalfRows { .. }));
                wrong |= !left_out && !half_rows;
            }
        }
        // What was measured stays, should the rest fail or be stopped.
        write(options, &report)?;
    }
    if also(Also::Options) {
        for shape in &shapes {
            let rows = options::measure(&gpu, &stopwatch, &kernels, shape, options.rounds.get())?;
            report.options.extend(rows);
        }
    }
    if also(Also::Linear) {
        for shape in frozen::shapes(kernels.profile().software) {
            if let Err(failure) = measure.frozen(&shape, &mut copier, &mut tuner, &mut report) {
                eprintln!("{shape} {}: {failure}", shape.element);
                report.refused.push(format!("{shape} {}: {failure}", shape.element));
                wrong |= !failure.is_refusal();
            }
        }
    }
    if report.kernels.is_empty() {
        return Err("no shape was measured".into());
    }
    if also(Also::Safety) {
        report.safety = safety::measure(&gpu, &stopwatch, options.rounds.get())?;
    }
    if also(Also::Step) {
        let StepCost { adapters, dispatches, record, finish } = step::record_cost(&gpu)?;
        let (record, finish) = (record.as_secs_f64(), finish.as_secs_f64());
        report.step = Some(StepRow { adapters, dispatches, record, finish });
    }
    write(options, &report)?;
    tuner.save(options.out.join("tuning.json"))?;
    println!("\n{}\nwritten to {}", report.markdown(), options.out.display());
    if wrong { Err("not everything was measured (see above)".into()) } else { Ok(()) }
}

fn write(options: &Options, report: &Report) -> Result<(), Box<dyn Error>> {
    std::fs::create_dir_all(&options.out)?;
    std::fs::write(options.out.join("report.json"), serde_json::to_string_pretty(report)?)?;
    std::fs::write(options.out.join("report.md"), report.markdown())?;
    if !report.kernels.is_empty() {
        plot::roofline(&options.out.join("roofline.png"), report)?;
    }
    Ok(())
}

/// What is known of a kernel before it runs.
struct Measured {
    shape: String,
    kernel: String,
    element: Element,
    tokens: u32,
    work: Work,
    working_set: u64,
    predicted: Option<f64>,
}

/// What every measurement needs.
struct Measure<'a> {
    gpu: &'a Gpu,
    stopwatch: &'a Stopwatch,
    kernels: &'a Kernels,
    options: &'a Options,
}

impl Measure<'_> {
    fn shape(
        &self,
        shape: &Shape,
        element: Element,
        copier: &mut Copier<'_>,
        tuner: &mut Tuner,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let Self { gpu, stopwatch, kernels, options } = *self;
        for write in [WriteMode::Overwrite, WriteMode::Accumulate] {
            let ours = Ours::new(gpu, kernels, shape, Setting { element, write, own_outputs: true })?;
            stopwatch.warm_up(|pass| Kernel::Forward.encode(&ours, pass))?;
            for kernel in Kernel::ALL {
                // AdamW sees no activations, and has no two ways of writing.
                if kernel.is_optimiser() && (element, write) != (Element::F32, WriteMode::Overwrite) {
                    continue;
                }
                let row = self.kernel(shape, &ours, kernel, copier)?;
                println!("{shape} {element} {}: {:.3} ms", row.kernel, 1e3 * row.seconds);
                report.kernels.push(row);
            }
        }
        if element != Element::F32 {
            return Ok(());
        }
        if options.also.contains(&Also::Alternatives) {
            let ours = Ours::new(gpu, kernels, shape, Setting::CONTEST)?;
            let contest = Rc::new(Contest::new(gpu, stopwatch, ours)?);
            for task in Task::ALL {
                let row = self.contest(shape, &contest, task)?;
                let others =
                    row.entrants.iter().skip(1).map(|other| format!("{} {:.2}", other.name, other.ratio));
                println!("{shape} {}: {}", row.task, others.collect::<Vec<_>>().join(", "));
                report.contests.push(row);
            }
        }
        if options.also.contains(&Also::Tuning) {
            for operation in Operation::training_step(Element::F32) {
                let (name, config) = (operation.name().to_owned(), contest::config(shape));
                let row = self.tuning(tuner, shape.to_string(), name, &config, shape.tokens, operation)?;
                report.tunings.push(row);
            }
        }
        Ok(())
    }

    /// The planner's own choice beside the best that the tuner finds.
    fn tuning(
        &self,
        tuner: &mut Tuner,
        shape: String,
        name: String,
        config: &Config,
        tokens: u32,
        operation: Operation,
    ) -> Result<TuningRow, Failure> {
        let measured = tuner.measure(self.gpu, config, tokens, operation)?;
        let (predicted, best) = (measured.predicted.as_secs_f64(), measured.best.as_secs_f64());
        println!("{shape} {name}: predicted {:.2} of the best", predicted / best);
        Ok(TuningRow { shape, operation: name, predicted, best, choice: describe(&measured.choice) })
    }

    /// The frozen layer.
    fn frozen(
        &self,
        shape: &frozen::Shape,
        copier: &mut Copier<'_>,
        tuner: &mut Tuner,
        report: &mut Report,
    ) -> Result<(), Failure> {
        let frozen = Frozen::new(self.gpu, self.kernels, shape)?;
        let measured = Measured {
            shape: shape.to_string(),
            kernel: shape.kernel().to_owned(),
            element: shape.element,
            tokens: shape.tokens,
            work: shape.operation().least_work(&shape.config(), shape.tokens)?,
            working_set: frozen.working_set,
            predicted: self.predicted(&shape.operation(), &shape.config(), shape.tokens)?,
        };
        self.stopwatch.warm_up(|pass| frozen.encode(pass))?;
        let row = self.row(measured, copier, || frozen.time(self.stopwatch))?;
        println!("{shape} {} {}: {:.3} ms", shape.element, shape.kernel(), 1e3 * row.seconds);
        report.kernels.push(row);
        if self.options.also.contains(&Also::Tuning) && shape.element == Element::F32 {
            let (name, tokens) = (shape.kernel().to_owned(), shape.tokens);
            let operation = shape.operation();
            let row = self.tuning(tuner, shape.to_string(), name, &shape.config(), tokens, operation)?;
            report.tunings.push(row);
        }
        Ok(())
    }

    fn kernel(
        &self,
        shape: &Shape,
        ours: &Ours,
        kernel: Kernel,
        copier: &mut Copier<'_>,
    ) -> Result<KernelRow, hydralora::Error> {
        let adds = ours.setting.write == WriteMode::Accumulate;
        let predicted = match kernel.operation(ours) {
            Some(operation) => self.predicted(&operation, &ours.config, shape.tokens)?,
            None => None,
        };
        let measured = Measured {
            shape: shape.to_string(),
            kernel: format!("{}{}", kernel.name(), if adds { ", adding" } else { "" }),
            element: ours.setting.element,
            tokens: shape.tokens,
            work: kernel.least_work(ours)?,
            working_set: kernel.working_set(ours)?,
            predicted,
        };
        self.row(measured, copier, || {
            let time = self.stopwatch.time(|pass| kernel.encode(ours, pass))?;
            Ok(time.as_secs_f64() / f64::from(ours.sets()))
        })
    }

    /// The row of something of which `run` returns the seconds.
    fn row(
        &self,
        measured: Measured,
        copier: &mut Copier<'_>,
        run: impl Fn() -> Result<f64, hydralora::Error>,
    ) -> Result<KernelRow, hydralora::Error> {
        // Some drivers compile a pipeline when it first runs.
        run()?;
        let mut times = Vec::new();
        for _ in 0..self.options.rounds.get() {
            times.push(run()?);
        }
        let Measured { shape, kernel, element, tokens, work, working_set, predicted } = measured;
        Ok(KernelRow {
            shape,
            element: element.to_string(),
            kernel,
            seconds: median(times),
            bytes: work.bytes,
            flops: work.flops,
            working_set,
            copied: (tokens <= MOST_COPIED_TOKENS).then(|| copier.seconds(work.bytes)).transpose()?,
            predicted,
        })
    }

    /// The seconds that the planner predicts for its plan, where it predicts any.
    fn predicted(
        &self,
        operation: &Operation,
        config: &Config,
        tokens: u32,
    ) -> Result<Option<f64>, hydralora::Error> {
        let planner = self.kernels.planner();
        let Some(choice) = planner.plan(operation, config, tokens)?.choice else { return Ok(None) };
        let predicted = planner.predict(choice, operation, config, tokens)?;
        Ok(predicted.map(|time| time.as_secs_f64()))
    }

    fn contest(
        &self,
        shape: &Shape,
        contest: &Rc<Contest>,
        task: Task,
    ) -> Result<ContestRow, hydralora::Error> {
        let entrants = contest.entrants(task);
        for entrant in &entrants {
            entrant.time(self.stopwatch)?;
        }
        self.stopwatch.warm_up(|pass| entrants[0].encode(pass))?;
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..self.options.rounds.get() {
            for (entrant, times) in entrants.iter().zip(&mut times) {
                times.push(entrant.time(self.stopwatch)?);
            }
        }
        let row = |(entrant, times_of): (&contest::Entrant, &Vec<f64>)| EntrantRow {
            name: entrant.name.to_owned(),
            dispatches: entrant.dispatches,
            seconds: median(times_of.clone()),
            ratio: median(times_of.iter().zip(&times[0]).map(|(time, ours)| time / ours).collect()),
        };
        Ok(ContestRow {
            shape: shape.to_string(),
            task: task.name().to_owned(),
            entrants: entrants.iter().zip(&times).map(row).collect(),
        })
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn describe(choice: &Choice) -> String {
    match choice {
        Choice::Fused(choice) => format!(
            "{} threads, {} tokens, {} expanded at a time, {} columns a thread in {} groups, {} complete at a time, \
             {} slices{}{}",
            choice.threads,
            4 * choice.quads,
            4 * choice.expand_quads,
            choice.columns,
            choice.groups,
            choice.summed_columns,
            choice.slices,
            if choice.broadcast { ", held" } else { "" },
            match choice.shrink_splits {
                0 => String::new(),
                splits => format!(", shrink apart in {splits} splits"),
            }
        ),
        Choice::Outer(choice) => format!(
            "{} threads, {} rows, {} splits{}{}",
            choice.threads,
            choice.rows,
            choice.splits,
            if choice.broadcast { ", held" } else { "" },
            if choice.separate { ", apart" } else { "" }
        ),
        Choice::Only => "the only one".to_owned(),
        Choice::Linear(choice) => {
            let LinearChoice { threads, thread_tokens, thread_quads, splits, way } = choice;
            let way = match way {
                LinearWay::Matrices { size } => format!("{size} x {size} matrices"),
                LinearWay::Tiled { depth } => format!("tiles of depth {depth}"),
                LinearWay::Direct { lanes, step, broadcast } => {
                    format!("{lanes} lanes, steps of {step}{}", if *broadcast { ", held" } else { "" })
                }
            };
            format!(
                "{threads} threads of {thread_tokens} tokens and {thread_quads} quads, {splits} splits, {way}"
            )
        }
    }
}
