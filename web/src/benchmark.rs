//! The benchmark page: what the device can do at most, and how near each kernel comes to that.

use std::cell::Cell;
use std::str::FromStr as _;

use hydralora::calibration::Calibration;
use hydralora::device::Gpu;
use hydralora::stopwatch::Stopwatch;
use hydralora::tuner::Tuner;
use hydralora::{Element, Kernels, WriteMode};
use hydralora_benches::contest::{self, Ours, Setting};
use hydralora_benches::grid::{self, Shape};
use hydralora_benches::kernel::Kernel;
use js_sys::Function;
use serde::{Deserialize, Serialize};
use wasm_bindgen::JsValue;
use wasm_bindgen::prelude::wasm_bindgen;

use crate::device::{describe, open};
use crate::failure::{Failure, Kind};
use crate::value::{self, Report};

/// Runs of each kernel, of which the median counts.
const ROUNDS: usize = 5;

thread_local! {
    /// Whether to measure no more shapes.
    static STOPPED: Cell<bool> = const { Cell::new(false) };
}

/// What the page asks for.
#[derive(Deserialize)]
struct Options {
    /// `TOKENS,D_IN,D_OUT,RANK,EXPERTS` each.
    shapes: Vec<String>,
    /// What an earlier measurement gave to keep, or nothing.
    kept: Option<String>,
}

/// What the page hears.
#[derive(Serialize)]
#[serde(rename_all = "camelCase", tag = "event")]
enum Event {
    /// What runs where.
    Began {
        device: String,
        clock: String,
    },
    /// The device's limits, and the text that keeps them.
    Calibrated {
        calibration: Calibration,
        kept: String,
    },
    Row(Row),
    /// A shape that is too much for the device.
    Refused {
        shape: String,
        reason: String,
    },
}

/// A kernel at a shape.
#[derive(Serialize)]
struct Row {
    shape: String,
    kernel: &'static str,
    seconds: f64,
    /// The least that it has to read and write, and to compute.
    bytes: u64,
    flops: u64,
}

/// The shapes of the small grid, as the page's field has them.
#[wasm_bindgen]
pub fn shapes() -> JsValue {
    let text = |shape: Shape| {
        let Shape { tokens, d_in, d_out, rank, experts } = shape;
        format!("{tokens},{d_in},{d_out},{rank},{experts}")
    };
    value::of(&grid::small().into_iter().map(text).collect::<Vec<_>>())
}

/// Measures no more shapes after this one.
#[wasm_bindgen]
pub fn stop_measuring() {
    STOPPED.set(true);
}

/// Measures the device, and each kernel at each shape.
#[wasm_bindgen]
pub async fn measure(options: JsValue, report: Function) -> Result<(), JsValue> {
    STOPPED.set(false);
    let Options { shapes, kept } = value::from(&options)?;
    let shape = |text: &String| Shape::from_str(text).map_err(|error| Failure::new(Kind::Shape, error));
    let shapes = shapes.iter().map(shape).collect::<Result<Vec<_>, _>>()?;
    let report = Report(report);
    let gpu = open(&report).await?;
    let measured = measure_on(&gpu, &shapes, kept.as_deref(), &report).await;
    gpu.device.destroy();
    Ok(measured?)
}

async fn measure_on(gpu: &Gpu, shapes: &[Shape], kept: Option<&str>, report: &Report) -> Result<(), Failure> {
    let stopwatch = Stopwatch::new(gpu)?;
    report.tell(&Event::Began { device: describe(gpu), clock: stopwatch.clock().to_string() });
    // Another device's, or another version's, is measured anew.
    let kept = kept.and_then(|kept| Tuner::parse(kept, &gpu.device).ok());
    let mut tuner = kept.unwrap_or_else(|| Tuner::new(&gpu.device));
    let calibration = match tuner.calibration() {
        Some(calibration) => *calibration,
        None => *tuner.calibrate_async(gpu).await?,
    };
    report.tell(&Event::Calibrated { calibration, kept: tuner.to_json() });
    let kernels = Kernels::with_profile(&gpu.device, &gpu.queue, tuner.profile(&gpu.device));
    for shape in shapes {
        if STOPPED.get() {
            break;
        }
        if let Err(failure) = measure_shape(gpu, &stopwatch, &kernels, shape, report).await {
            if !failure.is_refusal() {
                return Err(failure.into());
            }
            report.tell(&Event::Refused { shape: shape.to_string(), reason: failure.to_string() });
        }
    }
    Ok(())
}

async fn measure_shape(
    gpu: &Gpu,
    stopwatch: &Stopwatch,
    kernels: &Kernels,
    shape: &Shape,
    report: &Report,
) -> Result<(), contest::Failure> {
    let setting = Setting { element: Element::F32, write: WriteMode::Overwrite, own_outputs: true };
    Ours::warm(kernels, shape, setting).await?;
    let ours = Ours::new(gpu, kernels, shape, setting)?;
    stopwatch.warm_up_async(|pass| Kernel::Forward.encode(&ours, pass)).await?;
    for kernel in Kernel::ALL {
        // Some drivers compile a pipeline when it first runs.
        gpu.submit(|pass| kernel.encode(&ours, pass))?;
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let time = stopwatch.time_async(|pass| kernel.encode(&ours, pass)).await?;
            times.push(time.as_secs_f64() / f64::from(ours.sets()));
        }
        times.sort_by(f64::total_cmp);
        let work = kernel.least_work(&ours)?;
        report.tell(&Event::Row(Row {
            shape: shape.to_string(),
            kernel: kernel.name(),
            seconds: times[ROUNDS / 2],
            bytes: work.bytes,
            flops: work.flops,
        }));
    }
    // Browsers free buffers when they please, and the next shape may need the room.
    ours.destroy();
    Ok(())
}
