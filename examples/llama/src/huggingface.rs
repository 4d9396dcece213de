//! Folders as Hugging Face's transformers saves models: `config.json`, safetensors in one file or several, and
//! `tokenizer.json`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde_json::Value;

use crate::config::Config;
use crate::error::Error;
use crate::rope::{self, Llama3};

/// The longest header that safetensors' writers allow.
const MOST_HEADER: u64 = 100_000_000;

/// Where a tensor lies.
#[derive(Debug)]
struct Place {
    file: PathBuf,
    dtype: Dtype,
    shape: Vec<usize>,
    first: u64,
    bytes: u64,
}

/// An open folder.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    tensors: BTreeMap<String, Place>,
    pub config: Config,
    /// The tokens after which a text ends.
    pub ends: Vec<u32>,
}

impl Folder {
    /// Reads everything but the tensors' numbers.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let mut tensors = BTreeMap::new();
        for file in files(path)? {
            places(&file, &mut tensors)?;
        }
        let file = path.join("config.json");
        let settings = json(&file)?;
        let (config, ends) = (config(&file, &settings)?, ends(&file, &settings)?);
        Ok(Self { path: path.to_owned(), tensors, config, ends })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    pub fn tokenizer(&self) -> PathBuf {
        self.path.join("tokenizer.json")
    }

    /// Where a tensor of this shape lies. A vector has one row.
    fn find(&self, name: &str, [rows, columns]: [u32; 2]) -> Result<&Place, Error> {
        let place = self.tensors.get(name);
        let wanted = [rows as usize, columns as usize];
        let fits = |place: &&Place| place.shape == wanted || (rows == 1 && place.shape == [columns as usize]);
        let found = place.map_or("missing".to_owned(), |place| format!("{:?}", place.shape));
        place.filter(fits).ok_or_else(|| Error::Tensor {
            path: self.path.clone(),
            name: name.to_owned(),
            expected: format!("{rows} x {columns}"),
            found,
        })
    }

    /// Whether a tensor of this shape is there.
    pub fn check(&self, name: &str, shape: [u32; 2]) -> Result<(), Error> {
        self.find(name, shape).map(drop)
    }

    /// The numbers of a tensor of this shape, row by row.
    pub fn read(&self, name: &str, shape: [u32; 2]) -> Result<Vec<f32>, Error> {
        let place = self.find(name, shape)?;
        let failed = |error| Error::Io { path: place.file.clone(), error };
        let mut file = File::open(&place.file).map_err(failed)?;
        file.seek(SeekFrom::Start(place.first)).map_err(failed)?;
        let mut bytes = vec![0; place.bytes as usize];
        file.read_exact(&mut bytes).map_err(failed)?;
        Ok(match place.dtype {
            Dtype::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Dtype::BF16 => bytes.as_chunks().0.iter().map(|&b| bf16::from_le_bytes(b).to_f32()).collect(),
            _ => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
        })
    }
}

fn json(path: &Path) -> Result<Value, Error> {
    let text = std::fs::read(path).map_err(|error| Error::Io { path: path.to_owned(), error })?;
    serde_json::from_slice(&text)
        .map_err(|error| Error::Damaged { path: path.to_owned(), reason: error.to_string() })
}

/// The files with tensors.
fn files(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let index = path.join("model.safetensors.index.json");
    if !index.is_file() {
        return Ok(vec![path.join("model.safetensors")]);
    }
    let map = json(&index)?;
    let damaged = || Error::Damaged { path: index.clone(), reason: "no weight_map of file names".to_owned() };
    let names = map.get("weight_map").and_then(Value::as_object).ok_or_else(damaged)?.values();
    let names: Option<std::collections::BTreeSet<&str>> = names.map(Value::as_str).collect();
    let names = names.ok_or_else(damaged)?;
    // A name leads nowhere but into the folder. On Windows a colon is after a drive, or before a stream.
    let plain = |name: &str| {
        let mut parts = Path::new(name).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(own)), None) if own == name)
            && !name.contains(['/', '\\', ':'])
    };
    if !names.iter().all(|name| plain(name)) {
        return Err(damaged());
    }
    Ok(names.into_iter().map(|name| path.join(name)).collect())
}

/// Adds the tensors of a file.
fn places(path: &Path, tensors: &mut BTreeMap<String, Place>) -> Result<(), Error> {
    let failed = |error| Error::Io { path: path.to_owned(), error };
    let damaged = |reason: String| Error::Damaged { path: path.to_owned(), reason };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut header = [0; 8];
    file.read_exact(&mut header).map_err(failed)?;
    let header = u64::from_le_bytes(header);
    if header > MOST_HEADER || header + 8 > length {
        return Err(damaged(format!("a header of {header} bytes, in a file of {length}")));
    }
    let mut text = vec![0; header as usize];
    file.read_exact(&mut text).map_err(failed)?;
    let metadata: Metadata = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
    // Reading the metadata checks that tensors lie one behind the other, each with the bytes of its shape.
    let filled = metadata.data_len() as u64;
    if filled != length - 8 - header {
        return Err(damaged(format!(
            "its tensors have {filled} bytes, and {} are there",
            length - 8 - header
        )));
    }
    for (name, info) in metadata.tensors() {
        if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16) {
            return Err(damaged(format!("`{name}` is {:?}; F32, F16 and BF16 can be read", info.dtype)));
        }
        let (start, end) = info.data_offsets;
        let (first, bytes) = (8 + header + start as u64, (end - start) as u64);
        let place =
            Place { file: path.to_owned(), dtype: info.dtype, shape: info.shape.clone(), first, bytes };
        if tensors.insert(name.clone(), place).is_some() {
            return Err(damaged(format!("`{name}` is there twice")));
        }
    }
    Ok(())
}

fn config(path: &Path, settings: &Value) -> Result<Config, Error> {
    let get = |key: &str| settings.get(key).filter(|value| !value.is_null());
    let unsupported = |what, value: &Value| {
        Err(Error::Unsupported { path: path.to_owned(), what, value: value.to_string() })
    };
    match get("model_type") {
        Some(value) if value == "llama" => {}
        value => return unsupported("model_type", value.unwrap_or(&Value::Null)),
    }
    match get("hidden_act") {
        Some(value) if value != "silu" => return unsupported("hidden_act", value),
        _ => {}
    }
    for what in ["attention_bias", "mlp_bias"] {
        match get(what) {
            Some(value) if value != false => return unsupported(what, value),
            _ => {}
        }
    }
    let wrong = |key: &str, expected| Error::Metadata {
        path: path.to_owned(),
        key: key.to_owned(),
        expected,
        found: get(key).map_or("missing".to_owned(), Value::to_string),
    };
    let whole = |value: &Value| {
        value.as_u64().and_then(|number| u32::try_from(number).ok()).filter(|&number| number > 0)
    };
    let count = |key: &str| get(key).and_then(whole).ok_or_else(|| wrong(key, "a whole number from 1 on"));
    let count_or = |key: &str, absent| if get(key).is_some() { count(key) } else { Ok(absent) };
    let number = |value: &Value| {
        let number = value.as_f64().map(|number| number as f32);
        number.filter(|number| *number > 0.0 && number.is_finite())
    };
    let (width, heads) = (count("hidden_size")?, count("num_attention_heads")?);
    let head_width = count_or("head_dim", width / heads)?;
    let tied = match get("tie_word_embeddings") {
        None => false,
        Some(value) => value.as_bool().ok_or_else(|| wrong("tie_word_embeddings", "true or false"))?,
    };
    let config = Config {
        blocks: count("num_hidden_layers")?,
        width,
        hidden: count("intermediate_size")?,
        heads,
        key_heads: count_or("num_key_value_heads", heads)?,
        head_width,
        vocabulary: count("vocab_size")?,
        context: count("max_position_embeddings")?,
        rates: Vec::new(),
        epsilon: get("rms_norm_eps")
            .and_then(number)
            .ok_or_else(|| wrong("rms_norm_eps", "a finite number above 0"))?,
        tied,
    };
    config.check(path)?;
    Ok(Config { rates: rates(path, settings, head_width)?, ..config })
}

/// The tokens after which a text ends: one, several or none.
fn ends(path: &Path, settings: &Value) -> Result<Vec<u32>, Error> {
    let key = "eos_token_id";
    let all = match settings.get(key) {
        None | Some(Value::Null) => &[],
        Some(Value::Array(all)) => &all[..],
        Some(one) => std::slice::from_ref(one),
    };
    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    all.iter().map(token).collect::<Option<_>>().ok_or_else(|| Error::Metadata {
        path: path.to_owned(),
        key: key.to_owned(),
        expected: "a token's number, or several",
        found: settings[key].to_string(),
    })
}

/// The angles by which the pairs of a head turn: transformers' `modeling_rope_utils`.
fn rates(path: &Path, settings: &Value, head_width: u32) -> Result<Vec<f64>, Error> {
    // Older versions have `rope_scaling` and `rope_theta`, newer ones both in `rope_parameters`.
    let get = |of: &'_ Value, key: &str| of.get(key).filter(|value| !value.is_null()).cloned();
    let place = if get(settings, "rope_parameters").is_some() { "rope_parameters" } else { "rope_scaling" };
    let rope = get(settings, place);
    let own = |key: &str| rope.as_ref().and_then(|rope| get(rope, key));
    if let Some(rope) = rope.as_ref().filter(|rope| !rope.is_object()) {
        return Err(Error::Unsupported {
            path: path.to_owned(),
            what: "RoPE scaling",
            value: rope.to_string(),
        });
    }
    let unsupported = |what, value: &Value| {
        Err(Error::Unsupported { path: path.to_owned(), what, value: value.to_string() })
    };
    let positive = |key: &str, value: Option<Value>| {
        let number = value.as_ref().and_then(Value::as_f64);
        number.filter(|number| *number > 0.0 && number.is_finite()).ok_or_else(|| Error::Metadata {
            path: path.to_owned(),
            key: key.to_owned(),
            expected: "a finite number above 0",
            found: value.map_or("missing".to_owned(), |value| value.to_string()),
        })
    };
    let factor = |key: &str| positive(&format!("{place}.{key}"), own(key));
    let base = own("rope_theta").or_else(|| get(settings, "rope_theta")).unwrap_or_else(|| 10_000.0.into());
    let rates = rope::rates(positive("rope_theta", Some(base))?, head_width);
    let part = own("partial_rotary_factor").or_else(|| get(settings, "partial_rotary_factor"));
    if let Some(part) = part.filter(|part| part.as_f64() != Some(1.0)) {
        return unsupported("partial_rotary_factor", &part);
    }
    let Some(kind) = own("rope_type").or_else(|| own("type")) else {
        return match &rope {
            Some(rope) if rope.get("factor").is_some() => unsupported("rope_scaling", rope),
            _ => Ok(rates),
        };
    };
    match kind.as_str() {
        Some("default") => Ok(rates),
        Some("linear") => {
            let slower = factor("factor")?;
            Ok(rates.into_iter().map(|rate| rate / slower).collect())
        }
        Some("llama3") => {
            let [low, high] = [factor("low_freq_factor")?, factor("high_freq_factor")?];
            let [factor, context] = [factor("factor")?, factor("original_max_position_embeddings")?];
            if high <= low {
                return unsupported("high_freq_factor, not above the low one,", &high.into());
            }
            let scaling = Llama3 { factor, low, high, context };
            Ok(rates.into_iter().map(|rate| scaling.scale(rate)).collect())
        }
        _ => unsupported("rope_type", &kind),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::{Path, PathBuf};

    use safetensors::Dtype;
    use safetensors::tensor::TensorView;

    use super::Folder;
    use crate::source::Source;

    const FILES: [&str; 6] = [
        "config.json",
        "model.safetensors.index.json",
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
        "tokenizer.json",
    ];

    fn tiny() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("data/tiny")
    }

    pub(crate) fn copy(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("hydralora-llama-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        for file in FILES {
            std::fs::copy(tiny().join(file), folder.join(file)).expect("a copy");
        }
        folder
    }

    /// What is wrong with a copy in which a text of a file is another.
    fn refused(name: &str, file: &str, [from, to]: [&str; 2]) -> String {
        let folder = copy(name);
        let text = std::fs::read_to_string(folder.join(file)).expect("a file");
        assert!(text.contains(from), "{from} in {text}");
        std::fs::write(folder.join(file), text.replacen(from, to, 1)).expect("a file");
        let error = Source::open(&folder).err().expect(to).to_string();
        std::fs::remove_dir_all(folder).expect("the copy");
        error
    }

    /// `tokenizers` itself panics at these.
    #[test]
    fn tokenizers_that_make_no_sense_are_refused() {
        let text = std::fs::read_to_string(tiny().join("tokenizer.json")).expect("a file");
        let mut settings: serde_json::Value = serde_json::from_str(&text).expect("a tokenizer");
        settings["model"]["continuing_subword_prefix"] = "longer than any token".into();
        settings["post_processor"] = serde_json::json!({
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "none", "type_id": 0}}], "pair": [],
            "special_tokens": {}
        });
        let folder = copy("tokenizer");
        let mut damaged = settings.clone();
        damaged["model"]["continuing_subword_prefix"] = serde_json::Value::Null;
        for own in [settings, damaged] {
            std::fs::write(folder.join("tokenizer.json"), own.to_string()).expect("a file");
            let error = Source::open(&folder).err().expect("it makes no sense").to_string();
            assert!(error.contains("tokenizer.json: the tokenizer: it makes no sense"), "{error}");
        }
        std::fs::remove_dir_all(folder).expect("the copy");
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (at, (change, part)) in [
            (["\"model_type\": \"llama\"", "\"model_type\": \"gpt2\""], "model_type = \"gpt2\""),
            (["\"silu\"", "\"gelu\""], "hidden_act = \"gelu\""),
            (["\"attention_bias\": false", "\"attention_bias\": true"], "attention_bias = true"),
            (["\"rope_type\": \"default\"", "\"rope_type\": \"yarn\""], "rope_type = \"yarn\""),
            (["\"rope_type\": \"default\"", "\"rope_type\": \"linear\""], "rope_parameters.factor"),
            (["\"rope_type\": \"default\"", "\"factor\": 2"], "rope_scaling = {"),
            (["\"rope_theta\": 5000.0", "\"rope_theta\": 0"], "rope_theta"),
            (
                ["\"bos_token_id\"", "\"partial_rotary_factor\": 0.5, \"bos_token_id\""],
                "partial_rotary_factor = 0.5",
            ),
            (["\"head_dim\": 64", "\"head_dim\": 66"], "2 heads of 66"),
            (["\"head_dim\": 64", "\"head_dim\": 260"], "2 heads of 260"),
            (["\"hidden_size\": 128", "\"hidden_size\": \"128\""], "hidden_size"),
            (["\"vocab_size\": 320", "\"vocab_size\": 0"], "vocab_size"),
            (["\"head_dim\": 64", "\"head_dim\": \"64\""], "head_dim"),
            (["\"num_key_value_heads\": 1", "\"num_key_value_heads\": 0"], "num_key_value_heads"),
            (["\"num_attention_heads\": 2", "\"num_attention_heads\": 4294967295"], "4294967295 heads"),
            (["\"model_type\": \"llama\",", ""], "model_type = null"),
            (["\"rms_norm_eps\": 1e-06", "\"rms_norm_eps\": 0"], "rms_norm_eps"),
            (["\"tie_word_embeddings\": false", "\"tie_word_embeddings\": 1"], "tie_word_embeddings"),
            (["\"eos_token_id\": 2", "\"eos_token_id\": [2, -1]"], "eos_token_id"),
            (
                ["\"num_hidden_layers\": 2", "\"num_hidden_layers\": 4294967295"],
                "`model.layers.2.input_layernorm.weight`",
            ),
            (["\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"], "the tensor = `model.layers.1."),
            (["\"hidden_size\": 128", "\"hidden_size\": 4294967292"], "`model.embed_tokens.weight`"),
            (["\"vocab_size\": 320", "\"vocab_size\": 300"], "the tokenizer has token 319"),
        ]
        .into_iter()
        .enumerate()
        {
            let error = refused(&format!("option{at}"), "config.json", change);
            assert!(error.contains(part), "{error}, not {part}");
        }
        let index = "model.safetensors.index.json";
        let outside = refused("outside", index, ["\"model-00001-of-00003", "\"../model-00001-of-00003"]);
        assert!(outside.contains("weight_map"), "{outside}");
        let drive = refused("drive", index, ["\"model-00001-of-00003", "\"C:model-00001-of-00003"]);
        assert!(drive.contains("weight_map"), "{drive}");
        let missing = refused("missing", index, ["\"model-00001-of-00003", "\"model-00004-of-00003"]);
        assert!(missing.contains("model-00004"), "{missing}");
    }

    #[test]
    fn tensors_that_the_model_has_no_use_for_are_refused() {
        let folder = copy("extra");
        let view = TensorView::new(Dtype::F32, vec![1], &[0; 4]).expect("a number");
        let name = "model.layers.0.self_attn.q_proj.bias";
        safetensors::serialize_to_file([(name, view)], None, &folder.join("extra.safetensors"))
            .expect("a file");
        let index = folder.join("model.safetensors.index.json");
        let text = std::fs::read_to_string(&index).expect("a file");
        let map = "\"weight_map\": {";
        assert!(text.contains(map), "{text}");
        let text = text.replacen(map, &format!("{map} \"{name}\": \"extra.safetensors\","), 1);
        std::fs::write(&index, text).expect("a file");
        let error = Source::open(&folder).err().expect("a bias").to_string();
        assert!(error.contains(&format!("the tensor = `{name}` is not supported")), "{error}");
        std::fs::remove_dir_all(folder).expect("the copy");
    }

    #[test]
    fn rotations_are_scaled_as_in_transformers() {
        // Of heads of 80 elements and the base 1000, every eighth, computed by transformers 5.24 in f32.
        let base = [1.0, 0.251_188_63, 0.063_095_73, 0.015_848_93, 0.003_981_071_5];
        let linear = [0.25, 0.062_797_16, 0.015_773_933, 0.003_962_232_3, 0.000_995_267_9];
        let llama3 = [1.0, 0.145_585_86, 0.007_886_967, 0.001_981_116_1, 0.000_497_633_9];
        let plain = r#"{"rope_theta": 1000}"#;
        let old = r#"{"rope_theta": 1000, "rope_scaling": {"type": "linear", "factor": 4.0}}"#;
        let new = r#"{"rope_parameters": {"rope_theta": 1000, "rope_type": "linear", "factor": 4.0}}"#;
        let three = r#"{"rope_theta": 1000, "rope_parameters": null, "rope_scaling": {"rope_type": "llama3", "factor": 8,
            "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64}}"#;
        for (settings, expected) in [(plain, base), (old, linear), (new, linear), (three, llama3)] {
            let settings = serde_json::from_str(settings).expect("JSON");
            let rates = super::rates(Path::new("config.json"), &settings, 80).expect("rates");
            assert_eq!(rates.len(), 40);
            for (rate, expected) in rates.iter().step_by(8).zip(expected) {
                assert!((rate / expected - 1.0).abs() < 1e-6, "{rate}, not {expected}, with {settings}");
            }
        }
        let equal = three.replace("\"high_freq_factor\": 4", "\"high_freq_factor\": 1");
        let settings = serde_json::from_str(&equal).expect("JSON");
        let error =
            super::rates(Path::new("config.json"), &settings, 80).expect_err("an empty range").to_string();
        assert!(error.contains("high_freq_factor"), "{error}");
    }

    #[test]
    fn damaged_files_and_wrong_shapes_are_refused() {
        let folder = copy("damaged");
        let path = folder.join(FILES[2]);
        let whole = std::fs::read(&path).expect("a file");
        for length in (0..whole.len()).step_by(997).chain([whole.len() - 1]) {
            std::fs::write(&path, &whole[..length]).expect("a file");
            assert!(Folder::open(&folder).is_err(), "the first {length} bytes");
        }
        // Bytes behind the tensors, and two tensors in the same place.
        std::fs::write(&path, [&whole[..], &[0; 4]].concat()).expect("a file");
        let error = Folder::open(&folder).expect_err("bytes of no tensor").to_string();
        assert!(error.contains("its tensors have"), "{error}");
        let place = r#"{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        let text = format!(r#"{{"a":{place},"b":{place}}}"#);
        let header = (text.len() as u64).to_le_bytes();
        std::fs::write(&path, [&header[..], text.as_bytes(), &[0; 4]].concat()).expect("a file");
        let error = Folder::open(&folder).expect_err("the same bytes twice").to_string();
        assert!(error.contains("invalid offset for tensor"), "{error}");
        std::fs::remove_dir_all(folder).expect("the copy");
        let folder = Folder::open(&tiny()).expect("a model");
        assert_eq!(folder.read("model.norm.weight", [1, 128]).expect("a norm").len(), 128);
        for (name, shape) in [("model.norm.weight", [1, 64]), ("model.nothing.weight", [1, 128])] {
            let error = folder.read(name, shape).expect_err("it is not there").to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
