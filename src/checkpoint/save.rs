//! Writing adapters with the keys of the released HydraLoRA code, and plain LoRA as PEFT reads it.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use super::error::CheckpointError;
use super::tensors::failed;
use super::{SETTINGS, WRAPPER};
use crate::element::Element;
use crate::layer::{Adapter, Config, DropoutOf, Router, Sharing, Weighting};

const TENSORS: &str = "adapter_model.safetensors";

/// Writes adapters into a folder, as `adapter_model.safetensors` in f32 and `adapter_config.json`, which
/// [`Checkpoint::open`](super::Checkpoint::open) reads back bit for bit. Layers with one expert are plain LoRA, which
/// PEFT loads too. `adapter` is asked for one module's matrices after the other.
///
/// Each file is written under another name first, and takes the place of an old one when it is complete. So the old one
/// is whole until the new one is.
///
/// # Errors
/// Layers that the format has no place for: other weights than the softmax's and `MoLA`'s, a router's bias, a
/// temperature, given weights, and modules with different numbers of experts or other weights. Matrices with wrong shapes, and what the system refuses.
pub fn save(
    folder: &Path,
    modules: &[(&str, Config)],
    adapter: impl FnMut(&str) -> Result<Adapter, CheckpointError>,
) -> Result<(), CheckpointError> {
    let settings = settings(modules)?;
    replace_in(folder, TENSORS, |file| write(file, modules, &settings, adapter))?;
    let settings = serde_json::to_vec_pretty(&settings).unwrap_or_default();
    replace_in(folder, SETTINGS, |file| file(&settings))
}

/// The bytes of the `adapter_model.safetensors` that [`save`] writes, which has the settings too: all that
/// [`Checkpoint::from_bytes`](super::Checkpoint::from_bytes) needs. For browsers, which have no folders.
///
/// # Errors
/// Those of [`save`], without the system's.
pub fn to_bytes(
    modules: &[(&str, Config)],
    adapter: impl FnMut(&str) -> Result<Adapter, CheckpointError>,
) -> Result<Vec<u8>, CheckpointError> {
    let mut bytes = Vec::new();
    let mut take = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    write(&mut take, modules, &settings(modules)?, adapter)?;
    Ok(bytes)
}

/// What takes the parts of a file, one after the other.
type Sink<'a> = dyn FnMut(&[u8]) -> Result<(), CheckpointError> + 'a;

fn write(
    file: &mut Sink<'_>,
    modules: &[(&str, Config)],
    settings: &Value,
    mut adapter: impl FnMut(&str) -> Result<Adapter, CheckpointError>,
) -> Result<(), CheckpointError> {
    let metadata = Map::from_iter([(SETTINGS.to_owned(), Value::from(settings.to_string()))]);
    write_tensors(file, modules, [""], &metadata, |name| Ok([adapter(name)?]))
}

/// Writes a file with the matrices of all modules, several versions of each: what comes behind a key is the version's.
/// `matrices` is asked for one module's after the other.
pub(super) fn write_tensors<const N: usize>(
    file: &mut Sink<'_>,
    modules: &[(&str, Config)],
    versions: [&str; N],
    metadata: &Map<String, Value>,
    mut matrices: impl FnMut(&str) -> Result<[Adapter; N], CheckpointError>,
) -> Result<(), CheckpointError> {
    let mut header = Map::new();
    let mut own = metadata.clone();
    own.insert("format".to_owned(), "pt".into());
    header.insert("__metadata__".to_owned(), own.into());
    let mut end = 0u64;
    for (name, config) in modules {
        for version in versions {
            for (key, [rows, columns]) in tensors(name, config) {
                let start = end;
                end += 4 * rows * columns;
                let info = json!({ "dtype": "F32", "shape": [rows, columns], "data_offsets": [start, end] });
                header.insert(format!("{key}{version}"), info);
            }
        }
    }
    let mut header = Value::Object(header).to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    file(&(header.len() as u64).to_le_bytes())?;
    file(&header)?;
    for (name, config) in modules {
        for adapter in matrices(name)? {
            // Checks every shape.
            config.layout()?.pack(&adapter)?;
            let router = (config.gate().router_columns(config) > 0).then_some(&adapter.router);
            let bias = config.gate().has_bias().then_some(&adapter.router_bias);
            for matrix in [&adapter.a].into_iter().chain(&adapter.b).chain(router).chain(bias) {
                file(&Element::F32.encode(matrix))?;
            }
        }
    }
    Ok(())
}

/// The names and shapes of a module's tensors, in the order of the file.
pub(super) fn tensors(module: &str, config: &Config) -> Vec<(String, [u64; 2])> {
    let [d_in, d_out, rank, experts] =
        [config.d_in, config.d_out, config.rank, config.experts].map(u64::from);
    let key = |part: &str| format!("{WRAPPER}{module}.lora_{part}.weight");
    let several = experts > 1;
    let mut tensors: Vec<_> = if several && config.a == Sharing::Separate {
        (0..experts).map(|i| (key(&format!("A{i}")), [rank, d_in])).collect()
    } else {
        vec![(key("A"), [rank, d_in])]
    };
    let b = |i: u64| if several { key(&format!("B{i}")) } else { key("B") };
    tensors.extend((0..experts).map(|i| (b(i), [d_out, rank])));
    let columns = config.gate().router_columns(config);
    if columns > 0 {
        tensors.push((key("route"), [experts, columns.into()]));
    }
    if config.gate().has_bias() {
        tensors.push((format!("{WRAPPER}{module}.lora_route.bias"), [experts, 1]));
    }
    tensors
}

/// `adapter_config.json`.
fn settings(modules: &[(&str, Config)]) -> Result<Value, CheckpointError> {
    let Some((_, first)) = modules.first() else {
        return Err(unstorable("modules", "none"));
    };
    let alpha = |config: &Config| f64::from(config.scaling) * f64::from(config.rank);
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for (name, config) in modules {
        check(config)?;
        if config.experts != first.experts {
            let found = format!("{} for `{name}`, {} for `{}`", config.experts, first.experts, modules[0].0);
            return Err(unstorable("experts", &found));
        }
        if config.weighting != first.weighting {
            let found = format!("{:?} for `{name}`", config.weighting);
            return Err(unstorable("weighting", &found));
        }
    }
    // All names once one differs, since a name also means the ends of longer ones.
    if modules.iter().any(|(_, config)| config.rank != first.rank) {
        ranks.extend(modules.iter().map(|(name, config)| ((*name).to_owned(), config.rank.into())));
    }
    if modules.iter().any(|(_, config)| alpha(config) != alpha(first)) {
        alphas.extend(modules.iter().map(|(name, config)| ((*name).to_owned(), alpha(config).into())));
    }
    let names: Vec<&str> = modules.iter().map(|(name, _)| *name).collect();
    let mut settings = json!({
        "alpha_pattern": alphas,
        "base_model_name_or_path": null,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "lora_alpha": alpha(first),
        "lora_dropout": first.dropout.filter(|of| of.of == DropoutOf::Input).map_or(0.0, |of| of.probability),
        "modules_to_save": null,
        "peft_type": "LORA",
        "r": first.rank,
        "rank_pattern": ranks,
        "target_modules": names,
        "task_type": null,
    });
    match first.weighting {
        _ if first.experts == 1 => {}
        Weighting::TopK { k, .. } => {
            settings["peft_type"] = "MOLA".into();
            settings["num_experts"] = first.experts.into();
            settings["top_k"] = k.into();
        }
        _ => settings["lora_nums"] = first.experts.into(),
    }
    Ok(settings)
}

/// Refuses what would be lost.
fn check(config: &Config) -> Result<(), CheckpointError> {
    config.layout()?;
    if config.experts == 1 && config.weighting != Weighting::Sigmoid {
        return match config.router {
            Router::Input | Router::Latent => Ok(()),
            given => Err(unstorable("router", &format!("{given:?}"))),
        };
    }
    if !matches!(config.weighting, Weighting::Softmax | Weighting::TopK { renormalise: true, .. }) {
        return Err(unstorable("weighting", &format!("{:?}", config.weighting)));
    }
    if config.router_bias {
        return Err(unstorable("router_bias", "true"));
    }
    if config.temperature != 1.0 {
        return Err(unstorable("temperature", &config.temperature.to_string()));
    }
    match config.router {
        Router::Input => Ok(()),
        // The width of its matrix tells which router it is.
        Router::Latent if config.rank != config.d_in => Ok(()),
        other => Err(unstorable("router", &format!("{other:?}"))),
    }
}

fn unstorable(option: &str, value: &str) -> CheckpointError {
    CheckpointError::Unstorable { option: option.to_owned(), value: value.to_owned() }
}

/// Writes a file of a folder whole, or leaves the old one: under another name, then in its place.
pub(super) fn replace_in(
    folder: &Path,
    name: &str,
    write: impl FnOnce(&mut Sink<'_>) -> Result<(), CheckpointError>,
) -> Result<(), CheckpointError> {
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    let path = folder.join(name);
    let part = folder.join(format!("{name}.{}.part", std::process::id()));
    let written = (|| {
        let mut file = BufWriter::new(File::create(&part).map_err(|error| failed(&part, error))?);
        write(&mut |bytes| file.write_all(bytes).map_err(|error| failed(&part, error)))?;
        let file = file.into_inner().map_err(|error| failed(&part, error.into_error()))?;
        file.sync_all().map_err(|error| failed(&part, error))?;
        std::fs::rename(&part, &path).map_err(|error| failed(&path, error))
    })();
    if written.is_err() {
        // What is left of it is of no use; if it stays, it does no harm.
        let _ = std::fs::remove_file(&part);
    }
    written
}
