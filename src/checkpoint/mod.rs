//! Adapters that other programs saved: HydraLoRA's own format, `LoRAMoE`'s, and PEFT's LoRA, in safetensors or as torch
//! pickles them.

mod archive;
mod error;
mod pickle;
mod save;
mod settings;
mod tensors;

pub use error::CheckpointError;
pub use save::save;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::element::Element;
use crate::layer::{Adapter, Config, Router, Sharing};
use settings::Settings;
use tensors::{Stored, failed};

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
}

/// Which tensor of a module a name means.
#[derive(Clone, Copy)]
enum Part {
    A(Option<u32>),
    B(Option<u32>),
    Router,
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
        let settings = Settings::parse(&text)?;
        let mut found: BTreeMap<String, Tensors> = BTreeMap::new();
        for file in files {
            for stored in tensors::of_file(&file)? {
                add(&mut found, stored)?;
            }
        }
        if found.is_empty() {
            return Err(CheckpointError::Damaged { path: folder, reason: "it has no tensors".to_owned() });
        }
        let (mut modules, mut tensors) = (Vec::new(), Vec::new());
        for (name, of_module) in found {
            let (config, element, bytes) = of_module.check(&name, &settings)?;
            modules.push(Module { name, config, element, bytes });
            tensors.push(of_module);
        }
        Ok(Self { modules, tensors, settings, accepts_any_number: false })
    }

    /// The same, but numbers that are infinite or NaN are loaded too.
    #[must_use]
    pub fn with_any_numbers(self) -> Self {
        Self { accepts_any_number: true, ..self }
    }

    /// The modules' names and layers, for a [`StackDescriptor`](crate::StackDescriptor).
    #[must_use]
    pub fn configs(&self) -> Vec<(&str, Config)> {
        self.modules.iter().map(|module| (module.name.as_str(), module.config)).collect()
    }

    /// The modules, in the order of their names.
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
fn add(found: &mut BTreeMap<String, Tensors>, stored: Stored) -> Result<(), CheckpointError> {
    let (module, part) = parse(&stored.key)?;
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
    };
    let mixed = match part {
        Part::A(_) => tensors.shared_a && (tensors.a.len() > 1 || number.is_some()),
        Part::B(_) => tensors.single_b && (tensors.b.len() > 1 || number.is_some()),
        Part::Router => false,
    };
    if before.is_some() || mixed {
        let (expected, found) = ("there once".to_owned(), "there twice, with a number or without".to_owned());
        return Err(CheckpointError::Tensor { module, key, expected, found });
    }
    Ok(())
}

/// The module and the part that a tensor's name means.
fn parse(key: &str) -> Result<(String, Part), CheckpointError> {
    let unexpected = || CheckpointError::Tensor {
        module: key.to_owned(),
        key: key.to_owned(),
        expected: "lora_A, lora_B or lora_route of a module, with `.weight`".to_owned(),
        found: "another tensor".to_owned(),
    };
    let (module, part) = key.rsplit_once(".lora_").ok_or_else(unexpected)?;
    let module = module.strip_prefix(WRAPPER).unwrap_or(module).to_owned();
    let Some(part) = part.strip_suffix(".default.weight").or_else(|| part.strip_suffix(".weight")) else {
        return Err(CheckpointError::Option {
            option: format!("lora_{part}"),
            value: format!("a tensor of `{module}`"),
        });
    };
    let number = |digits: &str| if digits.is_empty() { Ok(None) } else { digits.parse().map(Some) };
    let part = match part.split_at_checked(1) {
        Some(("A", digits)) => Part::A(number(digits).map_err(|_| unexpected())?),
        Some(("B", digits)) => Part::B(number(digits).map_err(|_| unexpected())?),
        _ if part == "route" => Part::Router,
        _ => return Err(unexpected()),
    };
    Ok((module, part))
}

impl Tensors {
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
        if let Some(said) = settings.experts.map(u64::from).filter(|&said| said != experts) {
            let found = format!("{experts} of them");
            return Err(wrong("lora_B", format!("one of {said}, as lora_nums says"), found));
        }
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
        let latent = router.as_ref().is_some_and(|router| columns(router) == rank && rank != d_in);
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
            ..Config::default()
        };
        let all = || a.values().chain(b.values()).chain(router);
        let bytes = |stored: &Stored| stored.shape.iter().product::<u64>() * stored.element.bytes();
        let element = all().map(|stored| stored.element).max_by_key(|element| element.bytes());
        Ok((config, element.unwrap_or_default(), all().map(bytes).sum()))
    }
}
