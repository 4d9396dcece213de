//! The suite checks itself: what it must notice, it notices. No device is needed.

use std::collections::HashSet;

use hydralora::twin::Approx;
use hydralora::{Choice, DeviceProfile, FusedChoice, LinearChoice, LinearWay, Router, wgpu};
use libtest_mimic::{Failed, Trial};

use super::adapters::planner;
use super::golden_files;
use crate::case::{Case, Operation, Planning, Shape};
use crate::cases;
use crate::compare::Ratios;
use crate::device::{Failure, Identity};
use crate::job::{Memory, Placement};
use crate::known::{Known, Verdict, judge};
use crate::op::Planned;

type Check = fn() -> Result<(), Failed>;

pub fn trials() -> Vec<Trial> {
    let checks: [(&str, Check); 6] = [
        ("wrong-numbers-are-noticed", wrong_numbers_are_noticed),
        ("stray-writes-are-noticed", stray_writes_are_noticed),
        ("names-and-seeds-are-unique", names_and_seeds_are_unique),
        ("choices-are-taken-and-reach-every-value", choices_are_taken_and_reach_every_value),
        ("known-failures-must-fail", known_failures_must_fail),
        ("a-directory-without-goldens-fails", a_directory_without_goldens_fails),
    ];
    checks.into_iter().map(|(name, check)| Trial::test(format!("suite/{name}"), check)).collect()
}

fn ensure(condition: bool, otherwise: &str) -> Result<(), Failed> {
    if condition { Ok(()) } else { Err(otherwise.into()) }
}

fn wrong_numbers_are_noticed() -> Result<(), Failed> {
    let expected = [Approx { value: 1.0, bound: 0.1 }];
    let verdict = |actual: &[f32]| Ratios::default().compare("y", actual, &expected);
    ensure(verdict(&[1.05]).is_ok(), "a number within its bound is refused")?;
    ensure(verdict(&[1.2]).is_err(), "a number beyond its bound passes")?;
    ensure(verdict(&[f32::NAN]).is_err(), "NaN passes")?;
    ensure(verdict(&[]).is_err(), "a missing result passes")?;
    let exact = Ratios::default().compare("y", &[1e-30], &[Approx::exact(0.0)]);
    ensure(exact.is_err(), "padding that is not zero passes")?;
    for certain in [f64::INFINITY, f64::NAN] {
        let verdict =
            |actual, bound| Ratios::default().compare("norm", &[actual], &[Approx { value: certain, bound }]);
        ensure(verdict(certain as f32, 0.0).is_ok(), "what the twin is sure of is refused")?;
        for other in [1.0, f32::NEG_INFINITY, if certain.is_nan() { f32::INFINITY } else { f32::NAN }] {
            ensure(verdict(other, 0.0).is_err(), "another number than the twin is sure of passes")?;
        }
        ensure(verdict(certain as f32, f64::INFINITY).is_err(), "a twin that overflowed passes")?;
    }
    ensure(Ratios::default().distribution().is_err(), "comparing nothing passes")
}

fn stray_writes_are_noticed() -> Result<(), Failed> {
    for placement in [Placement::Separate, Placement::OneAllocation, Placement::Pool] {
        let case = Case::new(Operation::Step(Router::Input), Shape::new(3, [5, 6], [2, 2]));
        let job = Case { room: 2, ..case }.job();
        let mut memory = Memory::new(&job, placement);
        memory.add_scratch("copies", 16);
        ensure(memory.results(&job, &memory.buffers).is_ok(), "untouched memory is refused")?;
        for (buffer, contents) in memory.buffers.iter().enumerate() {
            for at in [0, contents.len() - 1] {
                let mut after = memory.buffers.clone();
                after[buffer][at] = 7;
                ensure(memory.results(&job, &after).is_err(), "a changed guard band passes")?;
            }
        }
        let x = memory.place("x").clone();
        let mut after = memory.buffers.clone();
        after[x.buffer][x.offset] += 1;
        ensure(memory.results(&job, &after).is_err(), "a changed input passes")?;
        let y = memory.place("y").clone();
        let mut after = memory.buffers.clone();
        after[y.buffer][y.offset + y.len] += 1;
        ensure(memory.results(&job, &after).is_err(), "a token beyond the batch's passes")?;
    }
    Ok(())
}

fn names_and_seeds_are_unique() -> Result<(), Failed> {
    let cases = cases::all();
    for (index, case) in cases.iter().enumerate() {
        if let Some(twin) = cases[..index].iter().find(|other| other.seed() == case.seed()) {
            return Err(format!("{case} and {twin} have the same seed").into());
        }
    }
    ensure(cases.len() > 300, "cases were lost")
}

/// A plan that cannot take its choice takes another without a word.
fn choices_are_taken_and_reach_every_value() -> Result<(), Failed> {
    let device = DeviceProfile::new(wgpu::Limits::default(), 8);
    let mut reached = HashSet::new();
    for case in cases::all() {
        let (fused, outer, linear, subgroup_lanes) = match case.planning {
            Planning::Chosen(fused, outer) => (fused, outer, None, 1),
            Planning::Shuffled(fused) => (Some(fused), None, None, 8),
            Planning::Linear(linear) => (None, None, Some(linear), 1),
            _ => continue,
        };
        let job = case.job();
        let mut device = DeviceProfile { subgroup_lanes, ..device.clone() };
        if let Some(LinearChoice { way: LinearWay::Matrices { size }, .. }) = linear {
            device.matrices = size;
        }
        if case.beyond_defaults {
            device.limits.max_compute_workgroup_storage_size *= 2;
        }
        let planner = planner(&device, case.planning, &job);
        for op in &job.ops {
            let planned = op.plan(&planner)?;
            let [Planned { recording, .. }] = &planned[..] else { return Err("no single recording".into()) };
            match recording.choice {
                Some(Choice::Fused(choice)) if fused == Some(choice) => {
                    let FusedChoice { threads, quads, columns, groups, expand_quads, .. } = choice;
                    let FusedChoice { summed_columns, slices, shrink_splits, .. } = choice;
                    reached.extend([("threads", threads), ("quads", quads), ("expand_quads", expand_quads)]);
                    reached.extend([("columns", columns), ("groups", groups)]);
                    reached.extend([("summed_columns", summed_columns), ("slices", slices)]);
                    reached.insert(("shrink_splits", shrink_splits));
                }
                Some(Choice::Outer(choice)) if outer == Some(choice) => {
                    reached.extend([("rows", choice.rows), ("splits", choice.splits)]);
                    reached.insert(("outer threads", choice.threads));
                    reached.insert(("separate", u32::from(choice.separate)));
                }
                Some(Choice::Linear(choice)) if linear == Some(choice) => {
                    reached.insert(("threads of linear", choice.threads));
                    reached.insert(("thread_tokens", choice.thread_tokens));
                    reached.insert(("thread_quads", choice.thread_quads));
                    reached.insert(("splits of linear", choice.splits));
                    reached.extend(match choice.way {
                        LinearWay::Matrices { size } => vec![("size", size)],
                        LinearWay::Tiled { depth } => vec![("depth", depth)],
                        LinearWay::Direct { lanes, step, .. } => vec![("lanes", lanes), ("step", step)],
                    });
                }
                other => return Err(format!("{case} takes {other:?}").into()),
            }
            let last = recording.steps.last().expect("a recording has steps");
            let staged = last.shader.source().wgsl.contains("ALL_STAGED = false;");
            reached.insert(("staged in several", u32::from(staged)));
        }
    }
    for (knob, values) in [
        ("threads", &[64, 128, 256][..]),
        ("quads", &[1, 2, 4, 8]),
        ("columns", &[4, 8, 16]),
        ("groups", &[1, 2, 4]),
        ("outer threads", &[64, 128, 256]),
        ("expand_quads", &[1, 2, 4]),
        ("summed_columns", &[1, 2, 4, 8]),
        ("slices", &[1, 2, 3]),
        ("shrink_splits", &[0, 1, 2, 3]),
        ("rows", &[4, 8, 12, 16, 32]),
        ("separate", &[0, 1]),
        ("splits", &[1, 2, 3, 5]),
        ("staged in several", &[0, 1]),
        ("threads of linear", &[64, 128, 256]),
        ("thread_tokens", &[1, 2, 4, 8, 16, 32]),
        ("thread_quads", &[1, 2]),
        ("splits of linear", &[1, 2, 3, 4, 5]),
        ("depth", &[1, 2, 4, 8]),
        ("lanes", &[1, 8, 16, 64]),
        ("step", &[1, 2, 4, 8]),
    ] {
        for &value in values {
            ensure(reached.contains(&(knob, value)), &format!("{knob} {value} is in no case"))?;
        }
    }
    Ok(())
}

fn known_failures_must_fail() -> Result<(), Failed> {
    let identity = Identity {
        adapter: "Vulkan/some driver".to_owned(),
        implementation: None,
        driver: String::new(),
        kind: String::new(),
        limits_of: crate::device::ADAPTER_LIMITS,
        features: String::new(),
        limits: Vec::new(),
    };
    let known = [Known {
        implementation: "some driver",
        case: "forward/",
        error: "NaN",
        reason: "why",
        link: "where",
    }];
    let verdict = |case, outcome| judge(&known, &identity, case, &outcome);
    let failed = |message: &str| Err(Failure::Failed(message.to_owned()));
    ensure(
        matches!(verdict("forward/x", failed("y is NaN")), Verdict::Known(_)),
        "a known failure is not known",
    )?;
    ensure(verdict("forward/x", failed("y is 3")) == Verdict::AsUsual, "another failure counts as known")?;
    ensure(verdict("linear/x", failed("y is NaN")) == Verdict::AsUsual, "another case counts as known")?;
    ensure(
        matches!(verdict("forward/x", Ok(None)), Verdict::NoLongerFails(_)),
        "an entry that no longer fails goes unnoticed",
    )
}

fn a_directory_without_goldens_fails() -> Result<(), Failed> {
    let folder = std::env::temp_dir().join("hydralora-no-goldens");
    std::fs::create_dir_all(&folder)?;
    ensure(golden_files::read(&folder).is_err(), "a directory without goldens passes")
}
