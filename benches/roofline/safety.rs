//! What wgpu's checks in shaders cost: the library's own shaders compiled with and without each.

use std::collections::{HashMap, HashSet};

use hydralora::device::Gpu;
use hydralora::kernel::Varying;
use hydralora::stopwatch::Stopwatch;
use hydralora::{DeviceProfile, Element, Error, Operation, Planner, Recording};
use hydralora_benches::contest::config;
use hydralora_benches::grid::{REFERENCE, Shape};
use hydralora_benches::recorder::{Checks, Dispatches, Recorder};

use crate::median;
use crate::report::SafetyRow;

/// A check, and the setting that differs from the library's only in it.
const CHECKS: [(&str, Checks); 3] = [
    ("bounds", Checks { bounds: false, ..Checks::OURS }),
    ("loop bounding", Checks { loops: true, ..Checks::OURS }),
    ("zeroing workgroup memory", Checks { zeroing: true, ..Checks::OURS }),
];

pub fn measure(gpu: &Gpu, stopwatch: &Stopwatch, rounds: usize) -> Result<Vec<SafetyRow>, Error> {
    let planner = Planner::new(DeviceProfile::of(&gpu.device));
    let mut rows = Vec::new();
    for shape in [REFERENCE, Shape { tokens: 16, ..REFERENCE }] {
        for operation in Operation::training_step(Element::F32) {
            let recording = planner.plan(&operation, &config(&shape), shape.tokens)?;
            let ours = record(gpu, &recording, Checks::OURS)?;
            for (check, checks) in CHECKS {
                let other = record(gpu, &recording, checks)?;
                for dispatches in [&ours, &other] {
                    dispatches.time(stopwatch)?;
                }
                stopwatch.warm_up(|pass| {
                    ours.encode(pass);
                    Ok(())
                })?;
                let mut ratios = Vec::new();
                for _ in 0..rounds {
                    let [ours, other] = [ours.time(stopwatch)?, other.time(stopwatch)?];
                    let (ours, other) = (ours.as_secs_f64(), other.as_secs_f64());
                    // The library has the check on bounds, and none of the others.
                    ratios.push(if checks.bounds { other / ours } else { ours / other });
                }
                let (shape, kernel, check) =
                    (shape.to_string(), operation.name().to_owned(), check.to_owned());
                let row = SafetyRow { shape, kernel, check, ratio: median(ratios) };
                println!("{} {}: {} costs {:.3}", row.shape, row.kernel, row.check, row.ratio);
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// The recording on zeros. Every buffer has what one binding may hold, so that nothing lies outside.
fn record(gpu: &Gpu, recording: &Recording, checks: Checks) -> Result<Dispatches, Error> {
    let slots: HashSet<_> = recording.steps.iter().flat_map(|step| &step.slots).collect();
    let buffers = slots.into_iter().map(|slot| Ok((slot, gpu.zeroed(&format!("{slot:?}"), 32 << 20)?)));
    let buffers = buffers.collect::<Result<HashMap<_, _>, Error>>()?;
    let mut recorder = Recorder::new(gpu, checks);
    let tokens = recording.capacity;
    for step in &recording.steps {
        let source = step.shader.source();
        let kinds = source.bindings[1..].iter().map(|binding| binding.kind);
        let bindings: Vec<_> = kinds.zip(step.slots.iter().map(|slot| &buffers[slot])).collect();
        let batch = [tokens, 0, 0, 0];
        let uniforms = [&step.uniform[..], bytemuck::bytes_of(&batch)];
        let groups = if source.varying == Varying::Batch { 2 } else { 1 };
        recorder.dispatch(source.wgsl, &uniforms[..groups], &bindings, step.grid.at(tokens));
    }
    Ok(recorder.finish())
}
