//! hydralora beside burn: one `HydraLoRA` adapter on one device, without the frozen layer, which is the same for
//! all. Prints a table; `cargo xtask peers` adds PyTorch.

mod contest;
mod fused;
mod graph;
mod module;

use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use burn::tensor::Device;
use clap::Parser;
use hydralora::device::Gpu;
use hydralora_benches::grid::{self, Shape};
use serde_json::json;

use contest::{Cost, Outcome, Problem};

#[derive(Parser)]
#[command(about)]
struct Arguments {
    /// What to measure, instead of the default grid; can be repeated
    #[arg(long = "shape", value_name = "TOKENS,D_IN,D_OUT,RANK,EXPERTS")]
    shapes: Vec<Shape>,
    /// Measure each shape's forward, and its forward and backward, for at least this long
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Also measure a layer with its frozen weights, with one expert, beside burn's Lora
    #[arg(long)]
    layers: bool,
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
    burn_hydralora::register(&device, &setup)?;
    let gpu = Gpu { device: setup.device, queue: setup.queue };
    let training = device.clone().autodiff();

    let on = gpu.describe();
    println!("{on}\n");
    println!("| implementation | shape | element | forward ms | forward+backward ms | host ms | MiB |");
    println!("|---|---|---|---|---|---|---|");
    let mut print = |names: &[&str], shape: Shape, costs: [Vec<Cost>; 2]| -> Outcome<()> {
        let Shape { tokens, d_in, d_out, rank, experts } = shape;
        let shape = format!("{tokens},{d_in},{d_out},{rank},{experts}");
        let [forward, step] = costs;
        for (name, (forward, step)) in names.iter().zip(forward.into_iter().zip(step)) {
            let Cost { whole, host, memory } = step;
            let (forward, mib) = (forward.whole, memory as f64 / f64::from(1 << 20));
            println!("| {name} | {shape} | f32 | {forward:.3} | {whole:.3} | {host:.3} | {mib:.1} |");
            if let Some(json) = &mut json {
                let row = json!({
                    "implementation": name, "shape": shape, "element": "f32", "device": on,
                    "forward_ms": forward, "step_ms": whole, "host_ms": host, "bytes": memory,
                });
                writeln!(json, "{row}")?;
            }
        }
        Ok(())
    };
    for shape in shapes {
        let problem = Problem::new(shape)?;
        let costs = [(false, &device), (true, &training)].map(|(backward, device)| {
            let mut passes = [
                fused::prepare(&gpu, &problem, backward)?,
                module::adapter(device, &problem)?,
                graph::official(device, &problem),
                graph::concatenated(device, &problem),
            ];
            contest::run(&mut passes, problem.inputs.len(), budget, device)
        });
        let [forward, step] = costs;
        let names = ["hydralora", "hydralora in burn", "burn official", "burn concatenated"];
        print(&names, shape, [forward?, step?])?;
        if arguments.layers {
            // burn's has one expert.
            let shape = Shape { experts: 1, ..shape };
            let problem = Problem::new(shape)?;
            let [forward, step] = [&device, &training].map(|device| {
                let mut passes = module::layers(device, &problem)?;
                contest::run(&mut passes, problem.inputs.len(), budget, device)
            });
            print(&["layer, hydralora in burn", "layer, burn's Lora"], shape, [forward?, step?])?;
        }
    }
    Ok(())
}
