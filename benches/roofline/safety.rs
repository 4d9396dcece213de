//! What wgpu's checks in shaders cost: the library's own shaders compiled with and without each.

use hydralora::device::Gpu;
use hydralora::op::{BackwardInputPlan, BackwardParamsPlan, ForwardPlan};
use hydralora::shader::BindingKind;
use hydralora::stopwatch::Stopwatch;
use hydralora::{DeviceProfile, DispatchPlan, Element, Error, Operation, wgpu};

use crate::contest::config;
use crate::grid::{REFERENCE, Shape};
use crate::median;
use crate::recorder::{Checks, Dispatches, Recorder};
use crate::report::SafetyRow;

/// A check, and the setting that differs from the library's only in it.
const CHECKS: [(&str, Checks); 3] = [
    ("bounds", Checks { bounds: false, ..Checks::OURS }),
    ("loop bounding", Checks { loops: true, ..Checks::OURS }),
    ("zeroing workgroup memory", Checks { zeroing: true, ..Checks::OURS }),
];

pub fn measure(gpu: &Gpu, stopwatch: &Stopwatch, rounds: usize) -> Result<Vec<SafetyRow>, Error> {
    let device = &DeviceProfile::of(&gpu.device);
    let mut rows = Vec::new();
    for shape in [REFERENCE, Shape { tokens: 16, ..REFERENCE }] {
        for (kernel, plans) in plans(&shape, device)? {
            let ours = record(gpu, &plans, Checks::OURS)?;
            for (check, checks) in CHECKS {
                let other = record(gpu, &plans, checks)?;
                let time = |dispatches: &Dispatches| stopwatch.time(|pass| dispatches.encode(pass));
                for dispatches in [&ours, &other] {
                    time(dispatches)?;
                }
                let mut ratios = Vec::new();
                for _ in 0..rounds {
                    let (ours, other) = (time(&ours)?.as_secs_f64(), time(&other)?.as_secs_f64());
                    // The library has the check on bounds, and none of the others.
                    ratios.push(if checks.bounds { other / ours } else { ours / other });
                }
                let (shape, kernel, check) = (shape.to_string(), kernel.to_owned(), check.to_owned());
                let row = SafetyRow { shape, kernel, check, ratio: median(ratios) };
                println!("{} {}: {} costs {:.3}", row.shape, row.kernel, row.check, row.ratio);
                rows.push(row);
            }
        }
    }
    Ok(rows)
}

/// The dispatches of each kernel.
fn plans(shape: &Shape, device: &DeviceProfile) -> Result<Vec<(&'static str, Vec<DispatchPlan>)>, Error> {
    let (config, tokens) = (&config(shape), shape.tokens);
    Operation::training_step(Element::F32)
        .into_iter()
        .map(|operation| {
            let plans = match &operation {
                Operation::Forward(options) => ForwardPlan::new(config, tokens, options, device)?.dispatches,
                Operation::BackwardInput(options) => {
                    BackwardInputPlan::new(config, tokens, options, device)?.dispatches
                }
                Operation::BackwardParams(options) => {
                    BackwardParamsPlan::new(config, tokens, options, device)?.dispatches
                }
            };
            Ok((operation.name(), plans))
        })
        .collect()
}

/// The plans on zeros. Every buffer has what one binding may hold, so that nothing lies outside.
fn record(gpu: &Gpu, plans: &[DispatchPlan], checks: Checks) -> Result<Dispatches, Error> {
    let mut recorder = Recorder::new(gpu, checks);
    for plan in plans {
        let source = plan.shader.source();
        let buffers = source.bindings[1..]
            .iter()
            .map(|binding| Ok((binding.kind, gpu.zeroed(binding.name, 32 << 20)?)))
            .collect::<Result<Vec<(BindingKind, wgpu::Buffer)>, Error>>()?;
        let bindings: Vec<_> = buffers.iter().map(|(kind, buffer)| (*kind, buffer)).collect();
        recorder.dispatch(source.wgsl, &plan.uniform, &bindings, plan.grid);
    }
    Ok(recorder.finish())
}
