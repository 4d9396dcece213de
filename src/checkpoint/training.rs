//! What training goes on from: the adapters, AdamW's moments and the number of steps, in one file, so that a write that
//! fails leaves all of them as they were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::CheckpointError;
use super::save::{replace_in, tensors, write_tensors};
use super::tensors::{self, Source, Stored};
use crate::layer::{Adapter, Config, Sharing};

const FILE: &str = "training.safetensors";
/// What the metadata say of each module: its layer.
const LAYERS: &str = "layers";
/// What comes behind the key of a parameter.
const VERSIONS: [&str; 3] = ["", ".first_moment", ".second_moment"];

/// The state of training that was saved. Its numbers are read one module at a time.
#[derive(Debug)]
pub struct Training {
    path: PathBuf,
    step: u32,
    layers: Map<String, Value>,
    tensors: BTreeMap<String, Stored>,
}

/// The state of a module in training.
#[derive(Debug, Clone, PartialEq)]
pub struct ModuleState {
    /// The parameters.
    pub parameters: Adapter,
    /// AdamW's first moments, in the shapes of the parameters.
    pub first_moments: Adapter,
    /// AdamW's second moments.
    pub second_moments: Adapter,
}

/// Writes the state of training into a folder, as `training.safetensors`, beside what [`save`](super::save) writes there
/// for others. `step` is the number of steps taken. `state` is asked for one module after the other. Any layer can be stored.
///
/// # Errors
/// An invalid layer, matrices with wrong shapes, and what the system refuses.
pub fn save_training(
    folder: &Path,
    modules: &[(&str, Config)],
    step: u32,
    mut state: impl FnMut(&str) -> Result<ModuleState, CheckpointError>,
) -> Result<(), CheckpointError> {
    modules.iter().try_for_each(|(_, config)| config.layout().map(drop))?;
    let layer = |(name, config): &(&str, Config)| ((*name).to_owned(), described(config).into());
    let layers = Value::Object(modules.iter().map(layer).collect());
    let metadata = [("step", step.to_string()), (LAYERS, layers.to_string())];
    let metadata = metadata.into_iter().map(|(key, text)| (key.to_owned(), Value::from(text))).collect();
    replace_in(folder, FILE, |file| {
        write_tensors(file, modules, VERSIONS, &metadata, |name| {
            let ModuleState { parameters, first_moments, second_moments } = state(name)?;
            Ok([parameters, first_moments, second_moments])
        })
    })
}

impl Training {
    /// Opens the `training.safetensors` of a folder.
    ///
    /// # Errors
    /// A file that is missing or damaged, or does not say the step or the layers.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(FILE);
        let (stored, metadata) = tensors::of_safetensors(&Source::Path(path.clone()))?;
        let step = metadata.get("step").and_then(|step| step.parse().ok());
        let layers = metadata.get(LAYERS).and_then(|layers| serde_json::from_str(layers).ok());
        let (Some(step), Some(layers)) = (step, layers) else {
            let reason = "its metadata do not say the step and the layers".to_owned();
            return Err(CheckpointError::Damaged { path, reason });
        };
        let tensors = stored.into_iter().map(|stored| (stored.key.clone(), stored)).collect();
        Ok(Self { path, step, layers, tensors })
    }

    /// The number of steps taken.
    #[must_use]
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Whether all of a module is there, in the shapes of its layer, and the layer is the same but for dropout.
    pub(crate) fn check(&self, module: &str, config: &Config) -> Result<(), CheckpointError> {
        self.check_layer(module, config)?;
        for version in VERSIONS {
            for (key, shape) in tensors(module, config) {
                self.find(module, format!("{key}{version}"), shape)?;
            }
        }
        Ok(())
    }

    fn check_layer(&self, module: &str, config: &Config) -> Result<(), CheckpointError> {
        config.layout()?;
        let expected = described(config);
        // A module that is not there has no tensors, which says more.
        if let Some(found) = self.layers.get(module).filter(|found| **found != expected) {
            let (module, found) = (module.to_owned(), found.as_str().unwrap_or("unknown").to_owned());
            return Err(CheckpointError::Layer { module, expected, found });
        }
        Ok(())
    }

    fn find(&self, module: &str, key: String, shape: [u64; 2]) -> Result<&Stored, CheckpointError> {
        let stored = self.tensors.get(&key);
        stored.filter(|stored| stored.matrix() == Some(shape)).ok_or_else(|| CheckpointError::Tensor {
            module: module.to_owned(),
            key,
            expected: format!("{} x {} in {}", shape[0], shape[1], self.path.display()),
            found: stored.map_or("missing".to_owned(), Stored::described),
        })
    }

    /// Reads the state of a module. Numbers that are not finite are read like others: training has them or not.
    ///
    /// # Errors
    /// Another layer than the saved one, tensors that are missing or have other shapes, and a file that has changed.
    pub fn module(&self, module: &str, config: &Config) -> Result<ModuleState, CheckpointError> {
        self.check_layer(module, config)?;
        let read = |version: &str| -> Result<Adapter, CheckpointError> {
            let mut all = tensors(module, config)
                .into_iter()
                .map(|(key, shape)| self.find(module, format!("{key}{version}"), shape)?.read());
            let mut take = |count: u32| all.by_ref().take(count as usize).collect::<Result<Vec<_>, _>>();
            let several = config.experts > 1 && config.a == Sharing::Separate;
            let a = take(if several { config.experts } else { 1 })?.concat();
            let b = take(config.experts)?;
            let router = take((config.gate().router_columns(config) > 0).into())?.concat();
            let router_bias = take(config.gate().has_bias().into())?.concat();
            Ok(Adapter { a, router, router_bias, b })
        };
        let [parameters, first_moments, second_moments] = VERSIONS.map(read);
        Ok(ModuleState {
            parameters: parameters?,
            first_moments: first_moments?,
            second_moments: second_moments?,
        })
    }
}

/// What makes a layer what it is, given its matrices. Files have it, so what `Display` says of a configuration stays as it is.
pub(crate) fn described(config: &Config) -> String {
    Config { dropout: None, logsumexp: false, ..*config }.to_string()
}
