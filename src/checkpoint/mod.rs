//! Adapters that other programs saved: HydraLoRA's own format, `LoRAMoE`'s and `MoLA`'s, PEFT's `LoRA` and Lily, in
//! safetensors or as torch pickles them.

mod archive;
mod error;
mod names;
mod pickle;
mod save;
mod settings;
mod tensors;
mod training;

pub use error::CheckpointError;
pub use names::{gguf_name, hugging_face_name};
pub use save::{save, to_bytes};
pub(crate) use training::described;
pub use training::{ModuleState, Training, save_training};

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::element::Element;
use crate::layer::{Adapter, Config, Router, Sharing, Weighting};
use names::Part;
use settings::{Method, Settings};
use tensors::{Source, Stored, failed};

const SETTINGS: &str = "adapter_config.json";
/// What all names begin with that PEFT wraps around a model.
const WRAPPER: &str = "base_model.model.";

/// A checkpoint whose settings and shapes have been read and checked. Its numbers are read one module at a time.
///
/// ```no_run
/// use hydralora::checkpoint::Checkpoint;
///
/// let checkpoint = Checkpoint::open("adapter".as_ref())?;
/// for module in checkpoint.modules() {
///     println!("{}: {}", module.name, module.config);
///     let adapter = checkpoint.adapter(&module.name)?;
/// }
/// # Ok::<(), hydralora::checkpoint::CheckpointError>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint {
    modules: Vec<Module>,
    tensors: Vec<Tensors>,
    settings: Settings,
    accepts_any_number: bool,
}

/// An adapted module of a checkpoint.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Module {
    /// Its name in the model, without what PEFT puts in front.
    pub name: String,
    /// Its layer, without dropout.
    pub config: Config,
    /// Whether all tokens of a batch have the same gates, the mean of those that `config` gives each: PEFT's Lily. An
    /// operation with this `config` gates each token by itself. The mean is in the report of
    /// [`Operation::GateLosses`](crate::Operation::GateLosses), and is given to a layer with
    /// [`Router::GivenWeights`] and one row for the batch.
    pub averages_gates: bool,
    /// The widest type of its stored numbers.
    pub element: Element,
    /// Bytes of its tensors.
    pub bytes: u64,
}

/// A module's tensors.
#[derive(Debug, Default)]
struct Tensors {
    a: BTreeMap<u32, Stored>,
    b: BTreeMap<u32, Stored>,
    /// Whether A and B have no number: one of each.
    shared_a: bool,
    single_b: bool,
    router: Option<Stored>,
    /// Lily's B, until it is taken apart.
    stack: Option<Stored>,
}

impl Checkpoint {
    /// Opens a folder with `adapter_config.json` beside `adapter_model.safetensors` or `adapter_model.bin`, perhaps in
    /// several files or in a folder of its own within, or one such file.
    ///
    /// # Errors
    /// Files that are missing or damaged, options and tensors that are not supported, and tensors that are missing, too
    /// many or of the wrong shape. Nothing is loaded in part.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let (folder, files) = files(path)?;
        let text =
            std::fs::read(folder.join(SETTINGS)).map_err(|error| failed(&folder.join(SETTINGS), error))?;
        let mut all = Vec::new();
        for file in files {
            all.extend(tensors::of_file(&file)?);
        }
        Self::of(Settings::parse(&text)?, all, &Source::Path(folder))
    }

    /// Reads what [`to_bytes`] gave, or the `adapter_model.safetensors` that [`save`] wrote, without a file: for
    /// browsers. `name` is the file's, for errors.
    ///
    /// # Errors
    /// Those of [`Checkpoint::open`]; a file of another program, which has its settings in another.
    pub fn from_bytes(name: &str, bytes: impl Into<Arc<[u8]>>) -> Result<Self, CheckpointError> {
        let source = Source::Bytes { name: name.into(), bytes: bytes.into() };
        let (tensors, metadata) = tensors::of_safetensors(&source)?;
        let Some(settings) = metadata.get(SETTINGS) else {
            return Err(source.damaged(format!("its metadata have no {SETTINGS}")));
        };
        Self::of(Settings::parse(settings.as_bytes())?, tensors, &source)
    }

    /// `all` are the tensors of `source`.
    fn of(settings: Settings, all: Vec<Stored>, source: &Source) -> Result<Self, CheckpointError> {
        let mut found: BTreeMap<String, Tensors> = BTreeMap::new();
        for stored in all {
            add(&mut found, stored, settings.method)?;
        }
        if found.is_empty() {
            return Err(source.damaged("it has no tensors".to_owned()));
        }
        let (mut modules, mut tensors) = (Vec::new(), Vec::new());
        for (name, mut of_module) in found {
            of_module.unstack(&name, &settings)?;
            let (config, element, bytes) = of_module.check(&name, &settings)?;
            let averages_gates = settings.method == Method::Lily;
            modules.push(Module { name, config, averages_gates, element, bytes });
            tensors.push(of_module);
        }
        Ok(Self { modules, tensors, settings, accepts_any_number: false })
    }

    /// The same, but numbers that are infinite or NaN are loaded too.
    #[must_use]
    pub fn with_any_numbers(self) -> Self {
        Self { accepts_any_number: true, ..self }
    }

    /// The same with other names of its modules, such as [`gguf_name`] gives them.
    ///
    /// # Errors
    /// Two modules would have one name.
    pub fn with_names(mut self, name: impl Fn(&str) -> String) -> Result<Self, CheckpointError> {
        let mut names = BTreeSet::new();
        for module in &mut self.modules {
            let new = name(&module.name);
            if !names.insert(new.clone()) {
                return Err(crate::Error::DuplicateModule { module: new }.into());
            }
            module.name = new;
        }
        Ok(self)
    }

    /// The modules' names and layers, for a [`StackDescriptor`](crate::StackDescriptor).
    #[must_use]
    pub fn configs(&self) -> Vec<(&str, Config)> {
        self.modules.iter().map(|module| (module.name.as_str(), module.config)).collect()
    }

    /// The modules, in the order of the names that the files have.
    #[must_use]
    pub fn modules(&self) -> &[Module] {
        &self.modules
    }

    /// The probability of dropout in training that was saved.
    #[must_use]
    pub fn dropout(&self) -> f32 {
        self.settings.dropout
    }

    /// Whether the model stores its weights as `d_in` x `d_out`. The adapter's matrices are never transposed.
    #[must_use]
    pub fn fan_in_fan_out(&self) -> bool {
        self.settings.fan_in_fan_out
    }

    /// Reads the matrices of a module.
    ///
    /// # Errors
    /// An unknown module, a file that has changed, and numbers that are not finite.
    pub fn adapter(&self, module: &str) -> Result<Adapter, CheckpointError> {
        let index = self.modules.iter().position(|known| known.name == module);
        let index = index.ok_or_else(|| CheckpointError::UnknownModule { module: module.to_owned() })?;
        let Tensors { a, b, router, .. } = &self.tensors[index];
        let read = |stored: &Stored| {
            let numbers = stored.read()?;
            let count = numbers.iter().filter(|number| !number.is_finite()).count();
            if count > 0 && !self.accepts_any_number {
                let first = numbers.iter().position(|number| !number.is_finite()).unwrap_or(0);
                let (module, key) = (module.to_owned(), stored.key.clone());
                return Err(CheckpointError::NotFinite { module, key, count, first });
            }
            Ok(numbers)
        };
        let mut all_a = Vec::new();
        for stored in a.values() {
            all_a.extend(read(stored)?);
        }
        // The weight of one expert is 1, whatever its router says.
        let router = router.iter().filter(|_| self.modules[index].config.experts > 1);
        let router = router.map(read).collect::<Result<Vec<_>, _>>()?.concat();
        Ok(Adapter {
            a: all_a,
            router,
            router_bias: Vec::new(),
            b: b.values().map(read).collect::<Result<_, _>>()?,
        })
    }
}

/// The folder with the settings, and the files with the tensors.
fn files(path: &Path) -> Result<(PathBuf, Vec<PathBuf>), CheckpointError> {
    let metadata = std::fs::metadata(path).map_err(|error| failed(path, error))?;
    if metadata.is_file() {
        return Ok((path.parent().unwrap_or(Path::new("")).to_owned(), vec![path.to_owned()]));
    }
    let list = |folder: &Path| -> Result<Vec<PathBuf>, CheckpointError> {
        let entries = std::fs::read_dir(folder).map_err(|error| failed(folder, error))?;
        let paths =
            entries.map(|entry| entry.map(|entry| entry.path()).map_err(|error| failed(folder, error)));
        let mut paths = paths.collect::<Result<Vec<_>, _>>()?;
        paths.sort();
        Ok(paths)
    };
    let mut folder = path.to_owned();
    if !folder.join(SETTINGS).is_file() {
        let nested: Vec<_> = list(path)?.into_iter().filter(|path| path.join(SETTINGS).is_file()).collect();
        let [only] = &nested[..] else {
            let reason = format!("there is no {SETTINGS} in it, but in {} folders within", nested.len());
            return Err(CheckpointError::Damaged { path: path.to_owned(), reason });
        };
        folder.clone_from(only);
    }
    let named = |path: &Path, extension: &str| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("adapter_model") && path.extension().is_some_and(|own| own == extension)
    };
    let all = list(&folder)?;
    // As PEFT does, safetensors are preferred to pickles.
    for extension in ["safetensors", "bin"] {
        let files: Vec<_> = all.iter().filter(|path| named(path, extension)).cloned().collect();
        if !files.is_empty() {
            return Ok((folder, files));
        }
    }
    let reason = "there is neither adapter_model.safetensors nor adapter_model.bin in it".to_owned();
    Err(CheckpointError::Damaged { path: folder, reason })
}

/// Adds a tensor to the module that its name says.
fn add(found: &mut BTreeMap<String, Tensors>, stored: Stored, method: Method) -> Result<(), CheckpointError> {
    let (module, part) = names::parse(&stored.key, method)?;
    let tensors = found.entry(module.clone()).or_default();
    let key = stored.key.clone();
    let (before, number) = match part {
        Part::A(number) => {
            tensors.shared_a |= number.is_none();
            (tensors.a.insert(number.unwrap_or(0), stored), number)
        }
        Part::B(number) => {
            tensors.single_b |= number.is_none();
            (tensors.b.insert(number.unwrap_or(0), stored), number)
        }
        Part::Router => (tensors.router.replace(stored), None),
        Part::Stack => (tensors.stack.replace(stored), None),
    };
    let mixed = match part {
        Part::A(_) => tensors.shared_a && (tensors.a.len() > 1 || number.is_some()),
        Part::B(_) => tensors.single_b && (tensors.b.len() > 1 || number.is_some()),
        Part::Router | Part::Stack => false,
    };
    if before.is_some() || mixed {
        let (expected, found) = ("there once".to_owned(), "there twice, with a number or without".to_owned());
        return Err(CheckpointError::Tensor { module, key, expected, found });
    }
    Ok(())
}

impl Tensors {
    /// Takes Lily's B apart: those of all experts lie below one another, each transposed.
    fn unstack(&mut self, module: &str, settings: &Settings) -> Result<(), CheckpointError> {
        let Some(stack) = self.stack.take() else { return Ok(()) };
        let experts = match (settings.method, settings.experts) {
            (Method::Lily, Some(experts)) if self.b.is_empty() => experts,
            _ => {
                let (module, key) = (module.to_owned(), stack.key);
                let (expected, found) = ("lora_B".to_owned(), "Lily's".to_owned());
                return Err(CheckpointError::Tensor { module, key, expected, found });
            }
        };
        let rank = u64::from(settings.rank(module));
        let rows = u64::from(experts).checked_mul(rank);
        // With a length of zero, a few bytes could claim any number of experts.
        let fits = |&[found, d_out]: &[u64; 2]| Some(found) == rows && d_out > 0;
        let Some([_, d_out]) = stack.matrix().filter(fits) else {
            return Err(CheckpointError::Tensor {
                module: module.to_owned(),
                expected: format!("{experts} * {rank} x d_out"),
                found: stack.described(),
                key: stack.key,
            });
        };
        for expert in 0..experts {
            let first_row = u64::from(expert) * rank;
            self.b.insert(expert, stack.transposed_rows(first_row, [rank, d_out]));
        }
        Ok(())
    }

    /// The layer that the tensors make with the settings, the widest type of its numbers, and their bytes.
    fn check(&self, module: &str, settings: &Settings) -> Result<(Config, Element, u64), CheckpointError> {
        let Self { a, b, router, .. } = self;
        let wrong = |key: &str, expected: String, found: String| CheckpointError::Tensor {
            module: module.to_owned(),
            key: key.to_owned(),
            expected,
            found,
        };
        let missing = |key: &str| wrong(key, "there".to_owned(), "missing".to_owned());
        let first = |tensors: &BTreeMap<u32, Stored>, key: &str| -> Result<Stored, CheckpointError> {
            let last = tensors.keys().next_back().ok_or_else(|| missing(key))?;
            match (0..=*last).find(|number| !tensors.contains_key(number)) {
                Some(number) => Err(missing(&format!("{key}{number}"))),
                None => Ok(tensors[&0].clone()),
            }
        };
        let (first_a, first_b) = (first(a, "lora_A")?, first(b, "lora_B")?);
        let experts = b.len() as u64;
        // MoE-PEFT leaves some modules without experts.
        let plain = self.shared_a && self.single_b && router.is_none();
        let may_be_plain = matches!(settings.method, Method::LoraMoe | Method::Mola);
        let said = settings.experts.map(u64::from).filter(|&said| said != experts);
        if let Some(said) = said.filter(|_| !(plain && may_be_plain)) {
            let found = format!("{experts} of them");
            return Err(wrong("lora_B", format!("one of {said}, as the settings say"), found));
        }
        let weighting = self.weighting(experts, settings)?;
        if a.len() > 1 && a.len() as u64 != experts {
            return Err(wrong(
                "lora_A",
                format!("one, or one for each of {experts} B"),
                format!("one of {}", a.len()),
            ));
        }
        let rank = u64::from(settings.rank(module));
        let columns = |stored: &Stored| stored.matrix().map_or(0, |[_, columns]| columns);
        let rows = |stored: &Stored| stored.matrix().map_or(0, |[rows, _]| rows);
        let (d_in, d_out) = (columns(&first_a), rows(&first_b));
        let expect = |stored: &Stored, shape: [u64; 2]| {
            if stored.matrix() == Some(shape) && shape.iter().all(|&length| length > 0) {
                return Ok(());
            }
            let [rows, columns] = shape;
            let transposed = stored.matrix() == Some([columns, rows]);
            let found = stored.described() + if transposed { ", its transpose" } else { "" };
            Err(wrong(&stored.key, format!("{rows} x {columns}"), found))
        };
        for stored in a.values() {
            expect(stored, [rank, d_in])?;
        }
        for stored in b.values() {
            // A transposed B is named by what it should be.
            let d_out = if rows(stored) == rank && columns(stored) != rank { columns(stored) } else { d_out };
            expect(stored, [d_out, rank])?;
        }
        let lily = settings.method == Method::Lily;
        let latent = router.as_ref().is_some_and(|router| lily || columns(router) == rank && rank != d_in);
        match router {
            Some(router) => expect(router, [experts, if latent { rank } else { d_in }])?,
            None if experts > 1 => return Err(missing("lora_route")),
            None => {}
        }
        let narrow = |length: u64, key: &str| {
            u32::try_from(length)
                .map_err(|_| wrong(key, "at most 2^32 - 1 long".to_owned(), length.to_string()))
        };
        let config = Config {
            d_in: narrow(d_in, &first_a.key)?,
            d_out: narrow(d_out, &first_b.key)?,
            rank: narrow(rank, "r")?,
            experts: narrow(experts, "lora_B")?,
            scaling: settings.scaling(module),
            router: if latent { Router::Latent } else { Router::Input },
            a: if self.shared_a || experts == 1 { Sharing::Shared } else { Sharing::Separate },
            weighting,
            ..Config::default()
        };
        // Whether there is such a layer.
        config.layout()?;
        let all = || a.values().chain(b.values()).chain(router);
        let bytes = |stored: &Stored| stored.shape.iter().product::<u64>() * stored.element.bytes();
        let element = all().map(|stored| stored.element).max_by_key(|element| element.bytes());
        Ok((config, element.unwrap_or_default(), all().map(bytes).sum()))
    }

    /// How the router's logits become weights. `MoLA` takes the best experts of each token; its own code does not save
    /// how many, so that somebody has to add it to the settings.
    fn weighting(&self, experts: u64, settings: &Settings) -> Result<Weighting, CheckpointError> {
        let mola = settings.method == Method::Mola
            || self.router.as_ref().is_some_and(|router| router.key.ends_with(names::MOLA_ROUTER));
        match settings.top_k {
            _ if experts == 1 => Ok(Weighting::Softmax),
            Some(k) if mola => Ok(Weighting::TopK { k, renormalise: true }),
            None if mola => Err(CheckpointError::Setting {
                option: "top_k".to_owned(),
                expected: "the number of experts of a token, which MoLA does not save: add it",
                found: "missing".to_owned(),
            }),
            Some(k) => Err(CheckpointError::Option { option: "top_k".to_owned(), value: k.to_string() }),
            None => Ok(Weighting::Softmax),
        }
    }
}
