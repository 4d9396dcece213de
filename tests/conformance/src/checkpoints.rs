//! Layers loaded from adapters that other programs saved (checkpoints/README.md), compared with what these programs
//! compute. `HYDRALORA_CHECKPOINTS=DIR` reads such folders from another directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use hydralora::Adapter;
use hydralora::checkpoint::{Checkpoint, CheckpointError};
use include_dir::{Dir, include_dir};
use safetensors::SafeTensors;

use crate::compare::{Distribution, Ratios};
use crate::device::{Device, Failure};
use crate::goldens::{Form, Golden, f32s, f64s};
use crate::suite::Plan;

static OWN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/checkpoints");

/// The suite's own checkpoints, as files.
static UNPACKED: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// A trial for every checkpoint.
pub fn plans(device: &Arc<dyn Device>) -> Vec<Plan> {
    let failed = |message: String| {
        vec![Plan::new("checkpoints", "checkpoints", move || Err(Failure::Failed(message)))]
    };
    folders().map_or_else(failed, |folders| folders.into_iter().map(|folder| plan(device, folder)).collect())
}

fn plan(device: &Arc<dyn Device>, folder: PathBuf) -> Plan {
    let device = Arc::clone(device);
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Plan::new(format!("checkpoints/{name}"), "checkpoints", move || check(&*device, &folder))
}

/// Every folder with an `expected.safetensors`, sorted by name.
fn folders() -> Result<Vec<PathBuf>, String> {
    let directory = match std::env::var_os("HYDRALORA_CHECKPOINTS") {
        Some(directory) => directory.into(),
        None => UNPACKED.get_or_init(unpack).clone()?,
    };
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let entries =
        std::fs::read_dir(&directory).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut folders: Vec<PathBuf> = entries.iter().map(std::fs::DirEntry::path).collect();
    folders.retain(|folder| folder.join("expected.safetensors").is_file());
    folders.sort();
    if folders.is_empty() {
        return Err(format!("no folder in {} has an expected.safetensors", directory.display()));
    }
    Ok(folders)
}

fn unpack() -> Result<PathBuf, String> {
    let directory = std::env::temp_dir().join(format!("hydralora-checkpoints-{}", std::process::id()));
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    std::fs::create_dir_all(&directory).map_err(failed)?;
    OWN.extract(&directory).map_err(failed)?;
    Ok(directory)
}

/// Removes the unpacked checkpoints.
pub fn clean_up() {
    if let Some(Ok(directory)) = UNPACKED.get() {
        // What is left does no harm.
        let _ = std::fs::remove_dir_all(directory);
    }
}

/// Compares every module of a checkpoint with its writer's output, or checks that the checkpoint is refused because of
/// what it has.
fn check(device: &dyn Device, folder: &Path) -> Result<Option<Distribution>, Failure> {
    let checkpoint = match Checkpoint::open(folder) {
        Err(CheckpointError::Option { option, value }) => {
            return refused(folder, &option, &value).map(|()| None);
        }
        other => other.map_err(|error| Failure::Failed(error.to_string()))?,
    };
    let bytes = std::fs::read(folder.join("expected.safetensors"));
    let bytes = bytes.map_err(|error| Failure::Failed(error.to_string()))?;
    let expected = SafeTensors::deserialize(&bytes).map_err(|error| Failure::Failed(error.to_string()))?;
    let modules: BTreeSet<&str> = checkpoint.modules().iter().map(|module| module.name.as_str()).collect();
    let wanted: BTreeSet<&str> =
        expected.names().into_iter().filter_map(|name| name.strip_suffix(".x")).collect();
    if modules != wanted {
        return Err(Failure::Failed(format!("the modules are {modules:?}, but should be {wanted:?}")));
    }
    let mut ratios = Ratios::default();
    for module in checkpoint.modules() {
        let adapter = checkpoint.adapter(&module.name).map_err(|error| Failure::Failed(error.to_string()))?;
        let golden = golden(&expected, &module.name, module.config, adapter).map_err(Failure::Failed)?;
        golden.compare(device, Form::INFERENCE, &mut ratios).map_err(|failure| match failure {
            Failure::Failed(message) => Failure::Failed(format!("{}: {message}", module.name)),
            other @ Failure::Unsupported(_) => other,
        })?;
    }
    Ok(Some(ratios.distribution()?))
}

/// Whether the option is there that a checkpoint was refused for.
fn refused(folder: &Path, option: &str, value: &str) -> Result<(), Failure> {
    let text = std::fs::read(folder.join("adapter_config.json"))
        .map_err(|error| Failure::Failed(error.to_string()))?;
    let settings: serde_json::Value =
        serde_json::from_slice(&text).map_err(|error| Failure::Failed(error.to_string()))?;
    let value: serde_json::Value = serde_json::from_str(value).unwrap_or_default();
    match settings.get(option) {
        Some(found) if *found == value => Ok(()),
        found => Err(Failure::Failed(format!("refused for {option} = {value}, which is {found:?} there"))),
    }
}

fn golden(
    expected: &SafeTensors<'_>,
    module: &str,
    config: hydralora::Config,
    adapter: Adapter,
) -> Result<Golden, String> {
    let name = |part: &str| format!("{module}.{part}");
    let f32s = |part: &str| f32s(expected, &name(part));
    let bias = expected.tensor(&name("bias")).is_ok().then(|| f32s("bias")).transpose()?;
    let y = f64s(expected, &name("expect.y"))?;
    Ok(Golden::of_layer(config, adapter, [f32s("x")?, f32s("weight")?], bias, y))
}
