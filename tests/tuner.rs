//! Measuring which plans are best, and files of what was. That every choice computes the same is the
//! conformance suite's. Without an adapter these tests fail and say how to get one.

use std::cell::RefCell;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Once};

use hydralora::device::Gpu;
use hydralora::op::{BackwardParamsPlan, ForwardPlan};
use hydralora::tuner::{Measurement, Tuner};
use hydralora::{
    Choice, Config, DeviceProfile, Element, Error, FusedChoice, Kernels, Limit, Operation, OuterChoice,
    Router, Tuning, WriteMode,
};
use serde_json::{Value, json};

static GPU: LazyLock<Gpu> = LazyLock::new(|| {
    let gpu = pollster::block_on(Gpu::from_env());
    gpu.unwrap_or_else(|error| panic!("these tests need a GPU or a software driver.\n{error}"))
});

/// A layer with few candidates, each of which compiles a pipeline.
const CONFIG: Config =
    Config { d_in: 64, d_out: 64, rank: 2, experts: 2, scaling: 1.5, router: Router::Latent };
const TOKENS: u32 = 8;

/// An operation of either kind of choice.
static OPERATIONS: LazyLock<[Operation; 2]> = LazyLock::new(|| {
    let [forward, _, params] = Operation::training_step(Element::F32, WriteMode::Overwrite);
    [forward, params]
});

/// What measuring them once gave.
static MEASURED: LazyLock<(Tuner, [Measurement; 2])> = LazyLock::new(|| {
    let mut tuner = Tuner::new(&GPU.device);
    let measure = |operation| tuner.measure(&GPU, &CONFIG, TOKENS, operation).expect("it fits");
    let measurements = OPERATIONS.map(measure);
    (tuner, measurements)
});

/// What is planned for either operation under a table.
fn plans(tuning: &Tuning) -> (ForwardPlan, BackwardParamsPlan) {
    let device = &DeviceProfile { tuning: tuning.clone(), ..DeviceProfile::of(&GPU.device) };
    let [Operation::Forward(forward), Operation::BackwardParams(params)] = &*OPERATIONS else {
        unreachable!("these are the operations")
    };
    (
        ForwardPlan::new(&CONFIG, TOKENS, forward, device).expect("it fits"),
        BackwardParamsPlan::new(&CONFIG, TOKENS, params, device).expect("it fits"),
    )
}

fn choices(operation: Operation) -> Vec<Choice> {
    operation.choices(&CONFIG, TOKENS, &DeviceProfile::of(&GPU.device)).expect("it fits")
}

fn kind(choice: &Choice) -> (bool, bool) {
    match *choice {
        Choice::Fused(FusedChoice { held, shrink_splits, .. }) => (held, shrink_splits > 0),
        Choice::Outer(OuterChoice { held, apart, .. }) => (held, apart),
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
        // Of every kind at least the one that is predicted to be best.
        let kinds = |choices: &[Choice]| choices.iter().map(kind).collect::<HashSet<_>>();
        assert_eq!(kinds(&timed), kinds(&all));
        assert!(timed.contains(&measurement.choice));
        assert!(measurement.best <= measurement.predicted, "{measurement:?}");
        assert_eq!(tuner.tuning().get(&CONFIG, TOKENS, operation), Some(measurement.choice));
    }
    assert_eq!(tuner.tuning().len(), 2);
    let (forward, params) = plans(tuner.tuning());
    let planned = [Choice::Fused(forward.choice), Choice::Outer(params.choice)];
    assert_eq!(planned, [measurements[0].choice, measurements[1].choice]);
}

#[test]
fn a_choice_holds_up_to_a_power_of_two_of_tokens() {
    for operation in *OPERATIONS {
        let choice = choices(operation)[0];
        let mut tuning = Tuning::default();
        tuning.set(&CONFIG, 5, operation, choice);
        let held: Vec<u32> =
            (1..=20).filter(|&tokens| tuning.get(&CONFIG, tokens, operation) == Some(choice)).collect();
        assert_eq!(held, [5, 6, 7, 8]);
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
        assert!(matches!(refused, Err(Error::OverLimit { limit: Limit::BufferSize, .. })), "{refused:?}");
        let refused = tuner.measure(&GPU, &CONFIG, 0, operation);
        assert_eq!(refused, Err(Error::ZeroDimension { dimension: "tokens" }));
    }
    assert_eq!(tuner, Tuner::new(&GPU.device), "nothing is noted");
}

#[test]
fn tuned_kernels_share_their_pipelines() {
    let kernels = Kernels::new(&GPU.device);
    let mut tuning = Tuning::default();
    let forward = OPERATIONS[0];
    tuning.set(&CONFIG, TOKENS, forward, choices(forward)[1]);
    let tuned = kernels.with_tuning(tuning.clone());
    assert_eq!((&kernels.profile().tuning, &tuned.profile().tuning), (&Tuning::default(), &tuning));
    let [first, second] =
        [&kernels.profile().tuning, &tuning].map(|tuning| plans(tuning).0.dispatches.swap_remove(0).shader);
    assert_ne!(first, second);
    kernels.warm([first.clone()]).expect("it compiles");
    assert_eq!((kernels.compiled(), tuned.compiled()), (1, 1));
    tuned.warm([first, second.clone()]).expect("it compiles");
    kernels.warm([second]).expect("it compiles");
    assert_eq!((kernels.compiled(), tuned.compiled()), (2, 2));
}

/// A folder of its own for each test, gone afterwards.
struct Folder(PathBuf);

impl Folder {
    fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("hydralora-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        Self(folder)
    }

    /// A file with these contents.
    fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, contents).expect("the folder can be written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

thread_local! {
    /// What the library warned of in this thread, which is this test.
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

/// What is loaded, and the warnings.
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
    // Over what was there, whatever its length.
    Tuner::new(&GPU.device).save(&path).expect("the folder can be written");
    assert_eq!(load(&path), (Tuner::new(&GPU.device), Vec::new()));
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
        // Whatever else another version has.
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
    // A folder is there, but no file.
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
