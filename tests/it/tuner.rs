//! Measuring which plans are best, and files of the results. The conformance suite tests that every choice
//! computes the same.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Once};

use hydralora::device::Gpu;
use hydralora::kernel::Shader;
use hydralora::tuner::{Measurement, Tuner};
use hydralora::{
    Capacity, Choice, Config, DeviceProfile, Element, Error, FusedChoice, Kernels, Limit, LinearChoice,
    LinearWay, Memory, Operation, OuterChoice, Planner, Plans, Recording, Router, Tuning, wgpu,
};
use serde_json::{Value, json};

use crate::common::{Folder, GPU, adapter};

/// A layer with few candidates, each of which compiles a pipeline.
const CONFIG: Config = Config {
    d_in: 64,
    d_out: 64,
    rank: 2,
    experts: 2,
    scaling: 1.5,
    router: Router::Latent,
    ..Config::DEFAULT
};
const TOKENS: u32 = 8;

/// An operation of each kind of choice.
static OPERATIONS: LazyLock<[Operation; 2]> = LazyLock::new(|| {
    let [forward, _, params] = Operation::training_step(Element::F32);
    [forward, params]
});

/// The tuner and the results after measuring each operation once.
static MEASURED: LazyLock<(Tuner, [Measurement; 2])> = LazyLock::new(|| {
    let mut tuner = Tuner::new(&GPU.device);
    let measure = |operation| tuner.measure(&GPU, &CONFIG, TOKENS, operation).expect("it fits");
    let measurements = OPERATIONS.map(measure);
    (tuner, measurements)
});

/// The device's planner, with a tuning table.
fn planner(tuning: &Tuning) -> Planner {
    Planner { tuning: tuning.clone(), profile: DeviceProfile::of(&GPU.device) }
}

/// The plans of the operations with a tuning table.
fn plans(tuning: &Tuning) -> [Recording; 2] {
    OPERATIONS.map(|operation| planner(tuning).plan(&operation, &CONFIG, TOKENS).expect("it fits"))
}

fn choices(operation: Operation) -> Vec<Choice> {
    planner(&Tuning::default()).choices(&operation, &CONFIG, TOKENS).expect("it fits")
}

fn kind(choice: &Choice) -> (bool, bool) {
    match *choice {
        Choice::Fused(FusedChoice { broadcast, shrink_splits, .. }) => (broadcast, shrink_splits > 0),
        Choice::Outer(OuterChoice { broadcast, separate, .. }) => (broadcast, separate),
        Choice::Linear(LinearChoice { way: LinearWay::Tiled { .. }, .. }) => (false, true),
        Choice::Linear(LinearChoice { way: LinearWay::Matrices { .. }, .. }) => (true, true),
        Choice::Linear(LinearChoice { way: LinearWay::Direct { broadcast, .. }, .. }) => (broadcast, false),
        Choice::Only => (false, false),
    }
}

#[test]
fn what_was_measured_is_what_plans_take() {
    let (tuner, measurements) = &*MEASURED;
    for (operation, measurement) in OPERATIONS.into_iter().zip(measurements) {
        let timed: Vec<Choice> = measurement.timed.iter().map(|(choice, _)| *choice).collect();
        let all = choices(operation);
        assert_eq!(timed[0], all[0], "the predicted one first");
        assert_eq!(timed.len(), all.len().min(16));
        assert!(timed.iter().all(|choice| all.contains(choice)));
        // The timed choices include every kind: at least the best predicted one of each.
        let kinds = |choices: &[Choice]| choices.iter().map(kind).collect::<HashSet<_>>();
        assert_eq!(kinds(&timed), kinds(&all));
        assert!(timed.contains(&measurement.choice));
        assert!(measurement.best <= measurement.predicted, "{measurement:?}");
        assert_eq!(tuner.tuning().get(&CONFIG, TOKENS, operation), Some(measurement.choice));
    }
    assert_eq!(tuner.tuning().len(), 2);
    let planned = plans(tuner.tuning()).map(|recording| recording.choice);
    assert_eq!(planned, [0, 1].map(|at| Some(measurements[at].choice)));
}

/// A layer with split tokens and more of every choice.
const SPLIT: Config = Config {
    d_in: 128,
    d_out: 96,
    rank: 4,
    experts: 3,
    scaling: 2.0,
    router: Router::Input,
    ..Config::DEFAULT
};
const SPLIT_TOKENS: u32 = 300;

/// The shaders of a recording.
fn shaders(recording: &Recording) -> Vec<Shader> {
    recording.steps.iter().map(|step| step.shader.clone()).collect()
}

#[test]
fn a_tuned_step_uses_what_was_tuned() {
    let step = Operation::training_step(Element::F32);
    let mut tuner = Tuner::new(&GPU.device);
    let measured = tuner.measure_step(&GPU, &CONFIG, TOKENS).expect("it fits");
    assert_eq!(tuner.tuning().len(), 3);
    for (operation, measured) in step.into_iter().zip(measured) {
        assert_eq!(tuner.tuning().get(&CONFIG, TOKENS, operation), Some(measured.choice));
    }
    // Choices that only a table would make.
    let predicted = planner(&Tuning::default());
    let mut tuning = Tuning::default();
    for operation in step {
        let choices = predicted.choices(&operation, &SPLIT, SPLIT_TOKENS).expect("it fits");
        let usual = shaders(&predicted.plan(&operation, &SPLIT, SPLIT_TOKENS).expect("it fits"));
        let unusual = choices.into_iter().rev().find(|&choice| {
            tuning.set(&SPLIT, SPLIT_TOKENS, operation, choice);
            let tuned = planner(&tuning).plan(&operation, &SPLIT, SPLIT_TOKENS).expect("it fits");
            let split = !matches!(choice, Choice::Outer(OuterChoice { splits: 1, .. }));
            tuned.choice == Some(choice)
                && split
                && shaders(&tuned).iter().any(|shader| !usual.contains(shader))
        });
        let unusual = unusual.expect("some choice compiles other shaders");
        assert_eq!(tuning.get(&SPLIT, SPLIT_TOKENS, operation), Some(unusual));
    }
    let kernels = Kernels::new(&GPU.device, &GPU.queue).with_tuning(tuning);
    let capacity = Capacity { tokens: SPLIT_TOKENS, plans: Plans::One };
    let prepared = step.map(|operation| kernels.prepare(&operation, &SPLIT, capacity).expect("it fits"));
    let recordings = prepared.each_ref().map(|prepared| prepared.recordings().next().expect("one plan"));
    let planned = step.map(|operation| kernels.planner().plan(&operation, &SPLIT, SPLIT_TOKENS));
    assert_eq!(planned, recordings.map(|recording| Ok(recording.clone())));
    let wanted: HashSet<Shader> = recordings.into_iter().flat_map(shaders).collect();
    let compiled = kernels.compiled();
    kernels.warm(wanted.clone()).expect("they compile");
    assert_eq!([compiled, kernels.compiled()], [wanted.len(); 2], "the table's shaders, and no others");

    let memory = Memory::new(&SPLIT, SPLIT_TOKENS, &step, kernels.planner()).expect("it fits");
    let scratch = prepared.each_ref().map(hydralora::Prepared::scratch_bytes);
    assert!(scratch[2] > 0, "the tokens are split");
    assert_eq!(Some(memory.scratch), scratch.into_iter().max());
}

#[test]
fn a_choice_holds_up_to_a_power_of_two_of_tokens() {
    for operation in *OPERATIONS {
        let choice = choices(operation)[0];
        let mut tuning = Tuning::default();
        tuning.set(&CONFIG, 5, operation, choice);
        let broadcast: Vec<u32> =
            (1..=20).filter(|&tokens| tuning.get(&CONFIG, tokens, operation) == Some(choice)).collect();
        assert_eq!(broadcast, [5, 6, 7, 8]);
        let scaled = Config { scaling: 3.0, ..CONFIG };
        assert_eq!(tuning.get(&scaled, 8, operation), Some(choice), "the scaling makes no difference");
        for other in [Config { d_in: 68, ..CONFIG }, Config { router: Router::Input, ..CONFIG }] {
            assert_eq!(tuning.get(&other, 8, operation), None, "{other:?} is another layer");
        }
        tuning.set(&CONFIG, 8, operation, choices(operation)[1]);
        assert_eq!((tuning.len(), tuning.get(&CONFIG, 5, operation)), (1, Some(choices(operation)[1])));
    }
    let [forward, params] = *OPERATIONS;
    let mut tuning = Tuning::default();
    tuning.set(&CONFIG, TOKENS, forward, choices(params)[0]);
    assert_eq!(
        plans(&tuning),
        plans(&Tuning::default()),
        "a choice of another kind of operation is not taken"
    );
}

#[test]
fn what_no_device_has_room_for_is_an_error() {
    let mut tuner = Tuner::new(&GPU.device);
    let huge = Config { d_in: 1 << 24, d_out: 1 << 24, ..CONFIG };
    for operation in *OPERATIONS {
        let refused = tuner.measure(&GPU, &huge, u32::MAX, operation);
        assert!(matches!(refused, Err(Error::OverLimit { .. })), "{refused:?}");
        let refused = tuner.measure(&GPU, &CONFIG, 1 << 30, operation);
        assert!(matches!(refused, Err(Error::OverLimit { limit: Limit::Elements, .. })), "{refused:?}");
        let refused = tuner.measure(&GPU, &CONFIG, 0, operation);
        assert_eq!(refused, Err(Error::ZeroDimension { dimension: "tokens" }));
    }
    assert_eq!(tuner, Tuner::new(&GPU.device), "nothing is noted");
}

#[test]
fn parameters_over_a_limit_are_an_error() {
    // 320 MiB of parameters, on a device with a limit of 256 MiB for a buffer.
    let request = adapter().request_device(&wgpu::DeviceDescriptor::default());
    let (device, queue) = pollster::block_on(request).expect("every device has WebGPU's default limits");
    let gpu = Gpu { device, queue };
    let wide = Config { d_out: 20_000, rank: 64, experts: 64, ..CONFIG };
    let mut tuner = Tuner::new(&gpu.device);
    for operation in Operation::training_step(Element::F32) {
        let refused = tuner.measure(&gpu, &wide, TOKENS, operation);
        let Err(Error::OverLimit { needed, allowed, .. }) = refused else { panic!("{refused:?}") };
        assert!(needed > allowed);
    }
    assert!(matches!(tuner.measure_step(&gpu, &wide, TOKENS), Err(Error::OverLimit { .. })));
    assert_eq!(tuner, Tuner::new(&gpu.device), "nothing is noted");
}

#[test]
fn tuned_kernels_share_their_pipelines() {
    let kernels = Kernels::new(&GPU.device, &GPU.queue);
    let mut tuning = Tuning::default();
    let forward = OPERATIONS[0];
    tuning.set(&CONFIG, TOKENS, forward, choices(forward)[1]);
    let tuned = kernels.with_tuning(tuning.clone());
    assert_eq!((&kernels.planner().tuning, &tuned.planner().tuning), (&Tuning::default(), &tuning));
    let [first, second] =
        [&kernels.planner().tuning, &tuning].map(|tuning| shaders(&plans(tuning)[0]).swap_remove(0));
    assert_ne!(first, second);
    kernels.warm([first.clone()]).expect("it compiles");
    assert_eq!((kernels.compiled(), tuned.compiled()), (1, 1));
    tuned.warm([first, second.clone()]).expect("it compiles");
    kernels.warm([second]).expect("it compiles");
    assert_eq!((kernels.compiled(), tuned.compiled()), (2, 2));
}

thread_local! {
    /// The library's warnings in this thread, which are those of one test.
    static WARNINGS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

struct Logger;

impl log::Log for Logger {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn && metadata.target().starts_with("hydralora")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            WARNINGS.with_borrow_mut(|warnings| warnings.push(record.args().to_string()));
        }
    }

    fn flush(&self) {}
}

/// Loads a file. Returns the tuner and the library's warnings.
fn load(path: &Path) -> (Tuner, Vec<String>) {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        log::set_logger(&Logger).expect("no other logger");
        log::set_max_level(log::LevelFilter::Warn);
    });
    WARNINGS.take();
    (Tuner::load(path, &GPU.device), WARNINGS.take())
}

/// The measured tuner's file.
fn saved(folder: &Folder) -> Vec<u8> {
    let path = folder.0.join("saved.json");
    MEASURED.0.save(&path).expect("the folder can be written");
    std::fs::read(path).expect("it was written")
}

#[test]
fn what_was_saved_is_loaded() {
    let folder = &Folder::new("saved");
    let path = folder.file("tuning.json", &saved(folder));
    assert_eq!(load(&path), (MEASURED.0.clone(), Vec::new()));
    // It replaces the file, whatever the length of the old one.
    Tuner::new(&GPU.device).save(&path).expect("the folder can be written");
    assert_eq!(load(&path), (Tuner::new(&GPU.device), Vec::new()));
}

#[test]
fn measurements_are_kept_as_text_too() {
    let text = MEASURED.0.to_json();
    assert_eq!(text.as_bytes(), saved(&Folder::new("text")));
    assert_eq!(Tuner::parse(&text, &GPU.device), Ok(MEASURED.0.clone()));
    for (text, reason) in [
        (text.replacen("\"version\": 4", "\"version\": 1", 1), "version 1"),
        (text.replacen("\"adapter\": \"", "\"adapter\": \"another ", 1), "another"),
        (text[..text.len() / 2].to_owned(), "EOF"),
    ] {
        let refused = Tuner::parse(&text, &GPU.device);
        let Err(Error::Tuning { reason: found }) = &refused else { panic!("{refused:?}") };
        assert!(found.contains(reason), "{found}");
    }
}

#[test]
fn a_missing_file_is_nothing_to_speak_of() {
    let folder = Folder::new("missing");
    assert_eq!(load(&folder.0.join("tuning.json")), (Tuner::new(&GPU.device), Vec::new()));
}

#[test]
fn files_that_are_no_use_are_ignored_with_a_warning() {
    let folder = &Folder::new("ignored");
    let saved = saved(folder);
    let edited = |edit: fn(&mut Value)| {
        let mut file: Value = serde_json::from_slice(&saved).expect("it is JSON");
        edit(&mut file);
        file.to_string().into_bytes()
    };
    for (name, contents, reason) in [
        ("empty", Vec::new(), "EOF"),
        ("corrupt", b"{ \"version\": 1, ]".to_vec(), "line 1"),
        ("not-text", vec![0xff; 64], "line 1"),
        ("truncated", saved[..saved.len() / 2].to_vec(), "EOF"),
        ("other-version", edited(|file| file["version"] = json!(1)), "version 1"),
        // Nothing else in a file of another version matters.
        ("newer", br#"{ "version": 7, "plans": {} }"#.to_vec(), "version 7"),
        ("other-device", edited(|file| file["device"]["adapter"] = json!("abacus")), "abacus"),
        ("other-driver", edited(|file| file["device"]["driver_info"] = json!("v0.0")), "v0.0"),
        ("other-choice", edited(|file| file["tuning"][0][1] = json!({ "Round": 3 })), "Round"),
    ] {
        let path = folder.file(name, &contents);
        let (tuner, warnings) = load(&path);
        assert_eq!(tuner, Tuner::new(&GPU.device), "{name}");
        let [warning] = &warnings[..] else { panic!("{name}: {warnings:?}") };
        for mention in [path.to_str().expect("a name in ASCII"), reason] {
            assert!(warning.contains(mention), "the warning should mention {mention:?}: {warning}");
        }
    }
    // There is a folder in the file's place.
    let (tuner, warnings) = load(&folder.0);
    assert_eq!((tuner, warnings.len()), (Tuner::new(&GPU.device), 1));
}

#[test]
fn impossible_choices_change_no_plan() {
    let folder = &Folder::new("impossible");
    let mut file: Value = serde_json::from_slice(&saved(folder)).expect("it is JSON");
    for entry in file["tuning"].as_array_mut().expect("entries") {
        match &mut entry[1] {
            choice if choice.get("Fused").is_some() => choice["Fused"]["quads"] = json!(3),
            choice => choice["Outer"]["rows"] = json!(5),
        }
    }
    let (tuner, warnings) = load(&folder.file("tuning.json", file.to_string().as_bytes()));
    assert_eq!((tuner.tuning().len(), warnings), (2, Vec::new()), "the file itself is in order");
    assert_eq!(plans(tuner.tuning()), plans(&Tuning::default()));
}

#[test]
fn where_nothing_can_be_written_saving_fails() {
    let folder = Folder::new("nowhere");
    let path = folder.0.join("no such folder/tuning.json");
    let error = Tuner::new(&GPU.device).save(&path).expect_err("the folder does not exist");
    assert!(matches!(&error, Error::File { path: named, .. } if *named == path.display().to_string()));
    assert!(error.to_string().contains("no such folder"), "{error}");
}

#[test]
fn whoever_loads_sees_a_whole_file() {
    let folder = &Folder::new("whole");
    let path = &folder.file("tuning.json", &saved(folder));
    let begun = &AtomicBool::new(false);
    let done = &AtomicBool::new(false);
    std::thread::scope(|scope| {
        let savers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(move || {
                    while !begun.load(Ordering::Relaxed) {}
                    (0..200).for_each(|_| MEASURED.0.save(path).expect("the folder can be written"));
                })
            })
            .collect();
        let loader = scope.spawn(move || {
            begun.store(true, Ordering::Relaxed);
            while !done.load(Ordering::Relaxed) {
                assert_eq!(load(path), (MEASURED.0.clone(), Vec::new()));
            }
        });
        for saver in savers {
            saver.join().expect("it saved");
        }
        done.store(true, Ordering::Relaxed);
        loader.join().expect("it loaded");
    });
    assert_eq!(folder.names(), ["saved.json", "tuning.json"]);
}

#[test]
fn what_cannot_be_replaced_stays_as_it_is() {
    let folder = &Folder::new("stays");
    let tuner = Tuner::new(&GPU.device);
    // A folder is in the file's place.
    let taken = folder.0.join("taken");
    std::fs::create_dir(&taken).expect("the folder can be written");
    let error = tuner.save(&taken).expect_err("it is a folder");
    assert!(matches!(&error, Error::File { path, .. } if *path == taken.display().to_string()), "{error}");
    for nameless in ["", "/", ".."] {
        assert!(matches!(tuner.save(nameless), Err(Error::File { .. })), "{nameless:?}");
    }
    assert_eq!(folder.names(), ["taken"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let permit = |mode| std::fs::set_permissions(&taken, std::fs::Permissions::from_mode(mode));
        permit(0o555).expect("the folder is ours");
        // Permissions do not keep an administrator from writing.
        let writable = std::fs::write(taken.join("anything"), "").is_ok();
        let outcome = tuner.save(taken.join("tuning.json"));
        permit(0o755).expect("the folder is ours");
        assert_eq!(outcome.is_ok(), writable, "{outcome:?}");
        let names = if writable { &["anything", "tuning.json"][..] } else { &[] };
        assert_eq!(Folder::names_in(&taken), names);
        // Saving through a link replaces the file that the link leads to.
        let (link, target) = (folder.0.join("link.json"), folder.file("target.json", b"old"));
        std::os::unix::fs::symlink(&target, &link).expect("the folder can be written");
        tuner.save(&link).expect("the folder can be written");
        assert!(link.is_symlink());
        assert_eq!(load(&target), (tuner, Vec::new()));
    }
}
