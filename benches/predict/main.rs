//! What the planner's cost model says of known GPUs, most of which have not run the library: `cargo xtask predict`.

mod gpus;

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Parser;
use gpus::{GPUS, Gpu};
use hydralora::{
    BackwardInputOptions, BackwardParamsOptions, Config, DeviceProfile, Element, ForwardOptions,
    LinearDirection, LinearOptions, Operation, Planner, Router, WriteMode,
};

/// Predict how long every kernel takes on known GPUs, and what part of the device's limit that is.
#[derive(Parser)]
#[command(name = "predict")]
struct Options {
    /// Where to write predictions.md
    #[arg(long, value_name = "FOLDER", default_value = "target/predict")]
    out: PathBuf,
    /// Print the plans too
    #[arg(long)]
    plans: bool,
    /// Cargo passes this
    #[arg(long, hide = true)]
    bench: bool,
}

const TOKENS: [u32; 5] = [1, 16, 128, 1024, 4096];
/// The numbers of tokens for other layers.
const FEWER_TOKENS: [u32; 3] = [16, 128, 4096];
/// `d_in`, `d_out`, rank and experts.
const LAYER: [u32; 4] = [4096, 4096, 8, 4];
const OTHERS: [[u32; 4]; 3] = [[4096, 11008, 8, 4], [11008, 4096, 8, 4], [4096, 4096, 32, 8]];

fn main() -> Result<(), Box<dyn Error>> {
    let options = Options::parse();
    hydralora_benches::enter_project()?;
    std::fs::create_dir_all(&options.out)?;
    let path = options.out.join("predictions.md");
    std::fs::write(&path, markdown()?)?;
    println!("written to {}", path.display());
    if options.plans {
        print_plans()?;
    }
    Ok(())
}

/// The operations of a training step with their names: the adapter's add to their results, and the frozen
/// layer's begin them.
fn operations(element: Element) -> [(&'static str, Operation); 5] {
    let write = WriteMode::Accumulate;
    let (x, y, g) = (element, element, element);
    let (source, weight, target) = (element, element, element);
    let linear = |direction| LinearOptions { direction, source, weight, target, ..Default::default() };
    let dx = Some((x, write));
    [
        ("forward", Operation::Forward(ForwardOptions { write, save: true, x, y, ..Default::default() })),
        ("backward_input", Operation::BackwardInput(BackwardInputOptions { g, dx, ..Default::default() })),
        (
            "backward_params",
            Operation::BackwardParams(BackwardParamsOptions { write, x, g, ..Default::default() }),
        ),
        ("linear", Operation::Linear(linear(LinearDirection::Forward))),
        ("linear, backward", Operation::Linear(linear(LinearDirection::Backward))),
    ]
}

fn config([d_in, d_out, rank, experts]: [u32; 4]) -> Config {
    Config { d_in, d_out, rank, experts, scaling: 2.0, router: Router::Input, ..Default::default() }
}

/// A plan of an operation, and its predicted time on a GPU.
struct Prediction {
    seconds: f64,
    /// The least that the device's memory and arithmetic allow.
    least: f64,
}

impl Prediction {
    /// The plan that is made for `planned`, on a device that is `actual`.
    fn new(
        planned: &DeviceProfile,
        actual: &DeviceProfile,
        operation: &Operation,
        config: &Config,
        tokens: u32,
    ) -> Result<Self, hydralora::Error> {
        let recording = Planner::new(planned.clone()).plan(operation, config, tokens)?;
        let actual_planner = Planner::new(actual.clone());
        let choice = recording.choice.map(|choice| actual_planner.predict(choice, operation, config, tokens));
        let seconds = choice.transpose()?.flatten().map_or(f64::NAN, |time| time.as_secs_f64());
        let least = actual.numbers.least_seconds(&operation.least_work(config, tokens)?);
        Ok(Self { seconds, least })
    }

    fn percent(&self) -> f64 {
        100.0 * self.least / self.seconds
    }
}

fn markdown() -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    let [d_in, d_out, rank, experts] = LAYER;
    writeln!(
        text,
        "**{d_in}x{d_out}, r={rank}, N={experts}**, results added to, but for the frozen layer's. Microseconds, and in brackets the part of the limit: \
         first of the plan that knows only the class of the adapter, then, where another plan is better, of the plan \
         that knows the device's numbers.\n"
    )?;
    writeln!(text, "| GPU | kernel | element | T=1 | 16 | 128 | 1024 | 4096 |")?;
    writeln!(text, "|---|---|---|---:|---:|---:|---:|---:|")?;
    for gpu in &GPUS {
        for element in [Element::F32, Element::F16] {
            for (name, operation) in operations(element) {
                write!(text, "| {} | {name} | {element} |", gpu.name)?;
                for tokens in TOKENS {
                    write!(text, " {} |", cell(gpu, &operation, &config(LAYER), tokens)?)?;
                }
                writeln!(text)?;
            }
        }
    }
    let tokens = FEWER_TOKENS.map(|tokens| format!("{tokens}"));
    writeln!(
        text,
        "\n**Other layers**, f32: percent of the limit with the device's numbers known, for forward / backward_input / \
         backward_params / linear / linear, backward.\n"
    )?;
    writeln!(text, "| GPU | layer | T={} |\n|---|---|{}", tokens.join(" | "), "---:|".repeat(tokens.len()))?;
    for gpu in &GPUS {
        for layer @ [d_in, d_out, rank, experts] in OTHERS {
            write!(text, "| {} | {d_in}x{d_out} r={rank} N={experts} |", gpu.name)?;
            for tokens in FEWER_TOKENS {
                let profile = gpu.calibrated();
                let percents = operations(Element::F32).map(|(_, operation)| {
                    Prediction::new(&profile, &profile, &operation, &config(layer), tokens)
                        .map(|prediction| format!("{:.0}", prediction.percent()))
                });
                let percents = percents.into_iter().collect::<Result<Vec<_>, _>>()?;
                write!(text, " {} |", percents.join(" / "))?;
            }
            writeln!(text)?;
        }
    }
    writeln!(text, "\nWhere the numbers of these GPUs come from:\n")?;
    for gpu in &GPUS {
        writeln!(text, "- {}: {}.", gpu.name, gpu.sources)?;
    }
    Ok(text)
}

fn cell(gpu: &Gpu, operation: &Operation, config: &Config, tokens: u32) -> Result<String, hydralora::Error> {
    let actual = gpu.calibrated();
    let predict = |planned| Prediction::new(planned, &actual, operation, config, tokens);
    let (by_class, by_numbers) = (predict(&gpu.uncalibrated())?, predict(&actual)?);
    let show =
        |prediction: &Prediction| format!("{:.0} ({:.0} %)", 1e6 * prediction.seconds, prediction.percent());
    // Differences below what anybody would notice are none.
    Ok(if by_class.seconds < 1.02 * by_numbers.seconds {
        show(&by_class)
    } else {
        format!("{}, {}", show(&by_class), show(&by_numbers))
    })
}

fn print_plans() -> Result<(), hydralora::Error> {
    for gpu in &GPUS {
        for profile in [gpu.uncalibrated(), gpu.calibrated()] {
            for (name, operation) in operations(Element::F32) {
                for tokens in TOKENS {
                    let recording = Planner::new(profile.clone()).plan(&operation, &config(LAYER), tokens)?;
                    let grids: Vec<_> = recording.steps.iter().map(|step| step.grid.at(tokens)).collect();
                    println!("{} {} T={tokens}: {:?} {grids:?}", gpu.name, name, recording.choice);
                }
            }
        }
    }
    Ok(())
}
