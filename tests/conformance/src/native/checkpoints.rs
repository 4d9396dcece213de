//! Layers loaded from adapters that other programs saved (checkpoints/README.md), compared with what these programs
//! compute. `HYDRALORA_CHECKPOINTS=DIR` reads such folders from another directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use hydralora::checkpoint::{Checkpoint, CheckpointError, Module};
use hydralora::{Adapter, Config, Router};
use include_dir::{Dir, include_dir};
use safetensors::SafeTensors;

use crate::compare::{Distribution, Ratios};
use crate::device::{Device, Failure};
use crate::goldens::{Form, Golden, f32s, f64s};
use crate::op::Elements;
use crate::suite::Plan;

const INFERENCE: Form = Form { elements: Elements::F32, training: false };

static OWN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/checkpoints");

/// The suite's own checkpoints, as files.
static UNPACKED: OnceLock<Result<PathBuf, String>> = OnceLock::new();

/// A trial for every checkpoint.
pub fn plans(device: &Arc<dyn Device>) -> Vec<Plan> {
    let failed = |message: String| {
        vec![Plan::new("checkpoints", "checkpoints", move || async { Err(Failure::Failed(message)) })]
    };
    folders().map_or_else(failed, |folders| folders.into_iter().map(|folder| plan(device, folder)).collect())
}

fn plan(device: &Arc<dyn Device>, folder: PathBuf) -> Plan {
    let device = Arc::clone(device);
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Plan::new(
        format!("checkpoints/{name}"),
        "checkpoints",
        move || async move { check(&*device, &folder).await },
    )
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
async fn check(device: &dyn Device, folder: &Path) -> Result<Option<Distribution>, Failure> {
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
        let golden = golden(&expected, module, adapter).map_err(Failure::Failed)?;
        golden.compare(device, INFERENCE, &mut ratios).await.map_err(|failure| match failure {
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

/// A layer of which only the output is known, perhaps with weights that are given.
fn of_layer(
    config: Config,
    adapter: Adapter,
    gates: Option<Vec<f64>>,
    [x, weight]: [Vec<f32>; 2],
    bias: Option<Vec<f32>>,
    y: Vec<f64>,
) -> Golden {
    let (g, dx) = (vec![0.0; y.len()], vec![0.0; x.len()]);
    let tokens = (x.len() / config.d_in as usize) as u32;
    let (gates_gradient, gradients) = (None, Adapter::default());
    Golden { config, tokens, adapter, gates, gates_gradient, x, g, weight, bias, y, dx, gradients }
}

fn golden(expected: &SafeTensors<'_>, module: &Module, adapter: Adapter) -> Result<Golden, String> {
    let name = |part: &str| format!("{}.{part}", module.name);
    let f32s = |part: &str| f32s(expected, &name(part));
    let bias = expected.tensor(&name("bias")).is_ok().then(|| f32s("bias")).transpose()?;
    let y = f64s(expected, &name("expect.y"))?;
    let inputs = [f32s("x")?, f32s("weight")?];
    if !module.averages_gates {
        return Ok(of_layer(module.config, adapter, None, inputs, bias, y));
    }
    let gates = mean_gates(&module.config, &adapter, &inputs[0]);
    let config = Config { router: Router::GivenWeights, ..module.config };
    let adapter = Adapter { router: Vec::new(), ..adapter };
    Ok(of_layer(config, adapter, Some(gates), inputs, bias, y))
}

/// The mean over all tokens of a latent router's gates, for each token.
fn mean_gates(config: &Config, adapter: &Adapter, x: &[f32]) -> Vec<f64> {
    let [d_in, rank, experts] = [config.d_in, config.rank, config.experts].map(|length| length as usize);
    let dot = |row: &[f32], vector: &[f64]| -> f64 {
        row.iter().zip(vector).map(|(&row, vector)| f64::from(row) * vector).sum()
    };
    let mut mean = vec![0.0; experts];
    let tokens = x.len() / d_in;
    for token in x.chunks(d_in) {
        let token: Vec<f64> = token.iter().copied().map(f64::from).collect();
        let h: Vec<f64> = adapter.a.chunks(d_in).map(|row| dot(row, &token)).collect();
        let logits: Vec<f64> = adapter.router.chunks(rank).map(|row| dot(row, &h)).collect();
        let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let powers: Vec<f64> = logits.iter().map(|logit| (logit - most).exp()).collect();
        let sum: f64 = powers.iter().sum();
        for (mean, power) in mean.iter_mut().zip(powers) {
            *mean += power / sum / tokens as f64;
        }
    }
    (0..tokens).flat_map(|_| mean.clone()).collect()
}
