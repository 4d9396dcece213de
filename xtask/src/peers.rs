//! `cargo xtask peers`: measures the layer beside burn's and PyTorch's on this machine, in one table.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::{Profile, cargo_on, driver};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// A Python with torch
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
    /// The device that PyTorch runs on: cpu or cuda
    #[arg(long, value_name = "NAME", default_value = "cpu", value_parser = ["cpu", "cuda"])]
    device: String,
    /// A shape to measure, instead of the default grid; can be repeated
    #[arg(long = "shape", value_name = "TOKENS,D_IN,D_OUT,RANK,EXPERTS")]
    shapes: Vec<String>,
    /// Measure each shape's forward, and its forward and backward, for at least this long
    #[arg(long, default_value = "2")]
    seconds: String,
}

/// Measures each implementation in turn, and prints every time with its ratio to hydralora's.
pub(crate) fn run(root: &Path, options: &Options) -> Result<(), String> {
    driver::ensure(Profile::Dev)?;
    let folder = root.join("target/peers");
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;

    let rust = cargo_on(&root.join("peers/Cargo.toml"), &["run", "--release", "--"]);
    let mut rows = measure(rust, options, &options.shapes, &folder.join("rust.jsonl"))?;

    let mut shapes: Vec<String> = rows.iter().map(|row| text(row, "shape").to_owned()).collect();
    shapes.dedup();
    let torch = Command::new(&options.python).args(["-c", "import torch"]).stderr(Stdio::null()).status();
    let outcome = if torch.is_ok_and(|status| status.success()) {
        let mut python = Command::new(&options.python);
        python.arg(root.join("peers/pytorch.py")).args(["--device", &options.device]);
        measure(python, options, &shapes, &folder.join("pytorch.jsonl")).map(|more| rows.extend(more))
    } else {
        eprintln!(
            "PyTorch is left out, because {} cannot import it. To have it compared too:\n    \
             python3 -m venv target/venv && target/venv/bin/pip install torch numpy\n    \
             cargo xtask peers --python target/venv/bin/python",
            options.python.display()
        );
        Ok(())
    };
    print(&rows, &shapes);
    outcome
}

/// Runs a comparison, and returns the rows that it writes. Its own table goes to standard error.
fn measure(
    mut command: Command,
    options: &Options,
    shapes: &[String],
    file: &Path,
) -> Result<Vec<Value>, String> {
    command.args(["--seconds", &options.seconds]).arg("--json").arg(file);
    command.args(shapes.iter().flat_map(|shape| ["--shape", shape])).stdout(std::io::stderr());
    let name = command.get_program().display().to_string();
    let status = command.status().map_err(|error| format!("{name} could not be run: {error}"))?;
    if !status.success() {
        return Err(format!("the comparison failed ({name}: {status})"));
    }
    let rows = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let rows = rows.lines().map(serde_json::from_str).collect::<Result<_, _>>();
    rows.map_err(|error| format!("{}: {error}", file.display()))
}

/// Prints what ran on which device, and the joint table.
fn print(rows: &[Value], shapes: &[String]) {
    let of = |shape| rows.iter().filter(move |row| text(row, "shape") == shape);
    for row in shapes.first().into_iter().flat_map(of) {
        println!("- {}: {}", text(row, "implementation"), text(row, "device"));
    }
    println!(
        "\nWall-clock time from recording to completion, medians, and its ratio to hydralora's. \
         A shape is tokens, d_in, d_out, rank, experts.\n\n\
         | implementation | shape | element | forward ms | ratio | forward+backward ms | ratio |\n\
         |---|---|---|---|---|---|---|"
    );
    for shape in shapes {
        let times =
            |row: &Value| ["forward_ms", "step_ms"].map(|time| row[time].as_f64().unwrap_or(f64::NAN));
        // The first row is hydralora's.
        let base = of(shape).next().map_or([f64::NAN; 2], times);
        for row in of(shape) {
            let [forward, step] = times(row);
            let [implementation, element] = ["implementation", "element"].map(|name| text(row, name));
            let ratios = [forward / base[0], step / base[1]];
            println!(
                "| {implementation} | {shape} | {element} | {forward:.3} | {:.2} | {step:.3} | {:.2} |",
                ratios[0], ratios[1]
            );
        }
    }
}

fn text<'a>(row: &'a Value, name: &str) -> &'a str {
    row[name].as_str().unwrap_or("?")
}
