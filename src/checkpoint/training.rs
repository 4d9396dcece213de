//! What training goes on from: the adapters, AdamW's moments and the number of steps, in one file, so that a write that
//! fails leaves all of them as they were.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::CheckpointError;
use super::save::{check, replace_in, tensors, write_tensors};
use super::tensors::{self, Source, Stored};
use crate::layer::{Adapter, Config, Sharing};

const FILE: &str = "training.safetensors";
/// What comes behind the key of a parameter.
const VERSIONS: [&str; 3] = ["", ".first_moment", ".second_moment"];

/// The state of training that was saved. Its numbers are read one module at a time.
#[derive(Debug)]
pub struct Training {
    path: PathBuf,
    step: u32,
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
/// for others. `step` is the number of steps taken. `state` is asked for one module after the other.
///
/// # Errors
/// Those of [`save`](super::save).
pub fn save_training(
    folder: &Path,
    modules: &[(&str, Config)],
    step: u32,
    mut state: impl FnMut(&str) -> Result<ModuleState, CheckpointError>,
) -> Result<(), CheckpointError> {
    modules.iter().try_for_each(|(_, config)| check(config))?;
    let metadata = Map::from_iter([("step".to_owned(), Value::from(step.to_string()))]);
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
    /// A file that is missing or damaged, or does not say the step.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(FILE);
        let (stored, metadata) = tensors::of_safetensors(&Source::Path(path.clone()))?;
        let step = metadata.get("step").and_then(|step| step.parse().ok());
        let step = step.ok_or_else(|| CheckpointError::Damaged {
            path: path.clone(),
            reason: "its metadata do not say the step".to_owned(),
        })?;
        let tensors = stored.into_iter().map(|stored| (stored.key.clone(), stored)).collect();
        Ok(Self { path, step, tensors })
    }

    /// The number of steps taken.
    #[must_use]
    pub fn step(&self) -> u32 {
        self.step
    }

    /// Whether all of a module is there, in the shapes of its layer.
    pub(crate) fn check(&self, module: &str, config: &Config) -> Result<(), CheckpointError> {
        check(config)?;
        for version in VERSIONS {
            for (key, shape) in tensors(module, config) {
                self.find(module, format!("{key}{version}"), shape)?;
            }
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
    /// Tensors that are missing or have other shapes than the layer's, and a file that has changed.
    pub fn module(&self, module: &str, config: &Config) -> Result<ModuleState, CheckpointError> {
        check(config)?;
        let read = |version: &str| -> Result<Adapter, CheckpointError> {
            let mut all = tensors(module, config)
                .into_iter()
                .map(|(key, shape)| self.find(module, format!("{key}{version}"), shape)?.read());
            let mut take = |count: u32| all.by_ref().take(count as usize).collect::<Result<Vec<_>, _>>();
            let several = config.experts > 1 && config.a == Sharing::Separate;
            let a = take(if several { config.experts } else { 1 })?.concat();
            let b = take(config.experts)?;
            let router = take(1)?.concat();
            Ok(Adapter { a, router, router_bias: Vec::new(), b })
        };
        let [parameters, first_moments, second_moments] = VERSIONS.map(read);
        Ok(ModuleState {
            parameters: parameters?,
            first_moments: first_moments?,
            second_moments: second_moments?,
        })
    }
}
