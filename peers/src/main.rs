//! hydralora beside burn: one `HydraLoRA` adapter on one device, without the frozen layer, which is the same for
//! all. Prints a table; `cargo xtask peers` adds PyTorch.

mod contest;
mod fused;
mod graph;

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use burn::tensor::Device;
use clap::Parser;
use hydralora::device::Gpu;
use hydralora_benches::grid::{self, Shape};
use serde_json::json;

use contest::{Outcome, Problem};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// What to measure, instead of the default grid; can be repeated
    #[arg(long = "shape", value_name = "TOKENS,D_IN,D_OUT,RANK,EXPERTS")]
    shapes: Vec<Shape>,
    /// Measure each shape's forward, and its forward and backward, for at least this long
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Also write the table's rows into this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> Outcome<()> {
    let arguments = Arguments::parse();
    let shapes = if arguments.shapes.is_empty() { grid::small() } else { arguments.shapes };
    let budget = Duration::from_secs_f64(arguments.seconds);
    let mut json = arguments.json.map(File::create).transpose()?;

    // burn asks for a device with what its kernels can use; hydralora's run on the same.
    let (device, setup) = Device::wgpu_options().init_with_setup()?;
    let gpu = Gpu { device: setup.device, queue: setup.queue };
    let training = device.clone().autodiff();

    let on = gpu.describe();
    println!("{on}\n");
    println!(
        "| implementation | shape | element | forward ms | forward+backward ms |\n|---|---|---|---|---|"
    );
    for shape in shapes {
        let problem = Problem::new(shape)?;
        let Shape { tokens, d_in, d_out, rank, experts } = shape;
        let shape = format!("{tokens},{d_in},{d_out},{rank},{experts}");
        let [forward, step] = [(false, &device), (true, &training)].map(|(backward, device)| {
            let mut passes = [
                fused::prepare(&gpu, &problem, backward)?,
                graph::official(device, &problem),
                graph::concatenated(device, &problem),
            ];
            contest::time(&mut passes, problem.inputs.len(), budget)
        });
        let times = forward?.into_iter().zip(step?);
        let names = ["hydralora", "burn official", "burn concatenated"];
        for (name, (forward, step)) in names.into_iter().zip(times) {
            println!("| {name} | {shape} | f32 | {forward:.3} | {step:.3} |");
            if let Some(json) = &mut json {
                let row = json!({
                    "implementation": name, "shape": shape, "element": "f32", "device": on,
                    "forward_ms": forward, "step_ms": step,
                });
                writeln!(json, "{row}")?;
            }
        }
    }
    Ok(())
}
