//! What a `LLaMA` model is made of.

use std::fmt::{self, Display};
use std::path::Path;

use crate::error::Error;
use crate::gguf::{Gguf, Value};
use crate::rope;

#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    pub blocks: u32,
    /// Elements of a token between blocks.
    pub width: u32,
    /// Elements of a token within the feed-forward part.
    pub hidden: u32,
    pub heads: u32,
    /// Heads of keys and values, each shared by some heads.
    pub key_heads: u32,
    /// Elements of a head.
    pub head_width: u32,
    pub vocabulary: u32,
    /// The most tokens that the model was trained to see.
    pub context: u32,
    /// By which angle each pair of a head turns from one place to the next.
    pub rates: Vec<f64>,
    pub epsilon: f32,
    /// Whether the logits' matrix is the embedding's.
    pub tied: bool,
}

/// The threads of a workgroup of attention, one for each element of a head.
const MOST_HEAD_WIDTH: u32 = 256;

/// By how much each pair of a head turns more slowly.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

impl Config {
    pub(crate) fn of_gguf(file: &Gguf) -> Result<Self, Error> {
        let architecture = file.text("general.architecture")?;
        if architecture != "llama" {
            return Err(unsupported(file, "general.architecture", architecture));
        }
        let count = |name: &str| file.count(&format!("llama.{name}"));
        let (width, heads) = (count("embedding_length")?, count("attention.head_count")?);
        let head_width = file.count_or("llama.attention.key_length", width / heads)?;
        for key in ["llama.attention.value_length", "llama.rope.dimension_count"] {
            let own = file.count_or(key, head_width)?;
            if own != head_width {
                return Err(unsupported(file, key, &own.to_string()));
            }
        }
        let vocabulary = file.texts("tokenizer.ggml.tokens")?.len() as u32;
        let config = Self {
            blocks: count("block_count")?,
            width,
            hidden: count("feed_forward_length")?,
            heads,
            key_heads: file.count_or("llama.attention.head_count_kv", heads)?,
            head_width,
            vocabulary,
            context: count("context_length")?,
            rates: Vec::new(),
            epsilon: file.positive("llama.attention.layer_norm_rms_epsilon")?,
            tied: !file.tensors().contains_key("output.weight"),
        };
        config.check(file.path())?;
        Ok(Self { rates: rates(file, head_width)?, ..config })
    }

    /// Refuses what the shaders are not made for.
    pub(crate) fn check(&self, path: &Path) -> Result<(), Error> {
        let Self { heads, key_heads, head_width, width, hidden, vocabulary, .. } = *self;
        let heads_fit = heads.is_multiple_of(key_heads) && heads.checked_mul(head_width).is_some();
        let fours = [width, hidden, vocabulary, head_width].iter().all(|length| length.is_multiple_of(4));
        if heads_fit && fours && (1..=MOST_HEAD_WIDTH).contains(&head_width) {
            return Ok(());
        }
        Err(Error::Unsupported {
            path: path.to_owned(),
            what: "a layer's shape",
            value: format!(
                "{heads} heads of {head_width}, {key_heads} of keys, width {width}, hidden {hidden}, {vocabulary} tokens \
                 (all but the heads' numbers are multiples of four here, and heads have at most {MOST_HEAD_WIDTH} elements)"
            ),
        })
    }

    /// Bytes of the matrices, of elements with so many bytes, and of the norms, in f32.
    pub fn bytes(&self, element: u64) -> u64 {
        // Wide enough for every shape that a file may claim.
        let [width, hidden, blocks, vocabulary] =
            [self.width, self.hidden, self.blocks, self.vocabulary].map(u128::from);
        let [queries, keys] = [self.query_width(), self.key_width()].map(u128::from);
        let block = 2 * width * (queries + keys) + 3 * width * hidden;
        let tables = if self.tied { 1 } else { 2 };
        let matrices = blocks * block + tables * vocabulary * width;
        let norms = (2 * blocks + 1) * width;
        u64::try_from(u128::from(element) * matrices + 4 * norms).unwrap_or(u64::MAX)
    }

    /// Elements of a token's queries.
    pub fn query_width(&self) -> u32 {
        self.heads * self.head_width
    }

    /// Elements of a token's keys, and of its values.
    pub fn key_width(&self) -> u32 {
        self.key_heads * self.head_width
    }
}

impl Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blocks, width, heads, vocabulary, .. } = self;
        write!(f, "{blocks} blocks of width {width} with {heads} heads, and {vocabulary} tokens,")
    }
}

fn unsupported(file: &Gguf, what: &'static str, value: &str) -> Error {
    Error::Unsupported { path: file.path().to_owned(), what, value: value.to_owned() }
}

/// The angles that a file's metadata and its factors give.
fn rates(file: &Gguf, head_width: u32) -> Result<Vec<f64>, Error> {
    let mut slower = 1.0;
    for key in file.keys().filter(|key| key.starts_with("llama.rope.scal")) {
        match (key, file.get(key)) {
            ("llama.rope.scaling.type", Some(Value::Text(kind))) if kind == "none" || kind == "linear" => {}
            // Older files have the second. 0 is none in either.
            ("llama.rope.scaling.factor" | "llama.rope.scale_linear", value) => {
                let none = matches!(value, Some(Value::Number(0.0) | Value::Whole(0)));
                slower = if none { 1.0 } else { file.positive(key)?.into() };
            }
            // They say where a factor comes from.
            ("llama.rope.scaling.original_context_length" | "llama.rope.scaling.finetuned", _) => {}
            (_, value) => return Err(unsupported(file, "RoPE scaling", &format!("{key}: {value:?}"))),
        }
    }
    if file.text("llama.rope.scaling.type").is_ok_and(|kind| kind == "none") {
        slower = 1.0;
    }
    let base = "llama.rope.freq_base";
    let base = if file.get(base).is_some() { file.positive(base)? } else { 10_000.0 };
    let mut rates = rope::rates(base.into(), head_width);
    for rate in &mut rates {
        *rate /= slower;
    }
    if file.tensors().contains_key(ROPE_FACTORS) {
        let factors = file.read(ROPE_FACTORS, [1, head_width / 2])?;
        if !factors.iter().all(|factor| *factor > 0.0 && factor.is_finite()) {
            return Err(unsupported(file, ROPE_FACTORS, "a factor that is not above 0"));
        }
        for (rate, factor) in rates.iter_mut().zip(factors) {
            *rate /= f64::from(factor);
        }
    }
    Ok(rates)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use super::Config;
    use crate::error::Error;
    use crate::gguf::Gguf;
    use crate::rope;

    pub(crate) fn text(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    /// An array of texts.
    pub(crate) fn texts(all: &[&str]) -> Vec<u8> {
        let items = all.iter().flat_map(|own| text(own)).collect();
        [8u32.to_le_bytes().to_vec(), (all.len() as u64).to_le_bytes().to_vec(), items].concat()
    }

    /// The configuration of a model with heads of 4 elements, with these entries (their kind and bytes) and factors.
    fn file(name: &str, more: &[(&str, u32, Vec<u8>)], factors: Option<[f32; 2]>) -> Result<Config, String> {
        let count = |count: u32| count.to_le_bytes().to_vec();
        let counts = [
            ("llama.block_count", 1),
            ("llama.embedding_length", 8),
            ("llama.feed_forward_length", 8),
            ("llama.attention.head_count", 2),
            ("llama.context_length", 64),
        ];
        let mut entries = vec![
            ("general.architecture", 8, text("llama")),
            ("llama.attention.layer_norm_rms_epsilon", 6, 1e-5f32.to_le_bytes().to_vec()),
            ("tokenizer.ggml.tokens", 9, texts(&["0", "1", "2", "3"])),
        ];
        entries.extend(counts.map(|(key, number)| (key, 4, count(number))));
        entries.extend_from_slice(more);
        let read = |file: &Gguf| Config::of_gguf(file);
        open(name, &entries, factors, read).map_err(|error| error.to_string())
    }

    /// What is read from a file with these entries, of which later ones replace earlier ones, and factors.
    pub(crate) fn open<T>(
        name: &str,
        entries: &[(&str, u32, Vec<u8>)],
        factors: Option<[f32; 2]>,
        read: impl FnOnce(&Gguf) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let count = |count: u32| count.to_le_bytes().to_vec();
        let entries: BTreeMap<&str, (u32, &[u8])> =
            entries.iter().map(|(key, kind, value)| (*key, (*kind, &value[..]))).collect();
        let mut bytes = [b"GGUF", &3u32.to_le_bytes()[..]].concat();
        bytes.extend(u64::from(factors.is_some()).to_le_bytes());
        bytes.extend((entries.len() as u64).to_le_bytes());
        for (key, (kind, value)) in entries {
            bytes.extend([&text(key), &count(kind), value].concat());
        }
        if let Some(factors) = factors {
            // One dimension of two numbers in f32, at the first byte of the data.
            let info = [text("rope_freqs.weight"), count(1), 2u64.to_le_bytes().to_vec()];
            bytes.extend([info.concat(), count(0), 0u64.to_le_bytes().to_vec()].concat());
            bytes.resize(bytes.len().next_multiple_of(32), 0);
            bytes.extend(factors.into_iter().flat_map(f32::to_le_bytes));
        }
        let path = std::env::temp_dir().join(format!("hydralora-config-{}-{name}", std::process::id()));
        std::fs::write(&path, bytes).expect("a file");
        let opened = Gguf::open(&path).and_then(|file| read(&file));
        std::fs::remove_file(path).expect("the file");
        opened
    }

    #[test]
    fn rotations_of_gguf_files_are_scaled() {
        let plain = rope::rates(10_000.0, 4);
        assert_eq!(plain, [1.0, 0.01]);
        assert_eq!(file("plain", &[], None).expect("a model").rates, plain);
        let number = |number: f32| number.to_le_bytes().to_vec();
        let linear = ("llama.rope.scaling.type", 8, text("linear"));
        let factor = ("llama.rope.scaling.factor", 6, number(4.0));
        let slower = file("linear", &[linear, factor.clone()], None).expect("a model");
        assert_eq!(slower.rates, [0.25, 0.0025]);
        let old = file("old", &[("llama.rope.scale_linear", 6, number(2.0))], None).expect("a model");
        assert_eq!(old.rates, [0.5, 0.005]);
        let none = ("llama.rope.scaling.type", 8, text("none"));
        assert_eq!(file("none", &[none, factor.clone()], None).expect("a model").rates, plain);
        let whole = file("whole", &[("llama.rope.freq_base", 4, 2500u32.to_le_bytes().to_vec())], None);
        assert_eq!(whole.expect("a model").rates, rope::rates(2500.0, 4));
        // As llama.cpp writes LLaMA 3.1's.
        assert_eq!(file("factors", &[], Some([1.0, 8.0])).expect("a model").rates, [1.0, 0.01 / 8.0]);
        for (at, (more, factors, part)) in [
            (vec![("llama.rope.scaling.type", 8, text("yarn"))], None, "yarn"),
            (vec![("llama.rope.scaling.factor", 6, number(-1.0))], None, "llama.rope.scaling.factor"),
            (vec![("llama.rope.scaling.attn_factor", 6, number(1.0))], None, "attn_factor"),
            (
                vec![("llama.rope.dimension_count", 4, 2u32.to_le_bytes().to_vec())],
                None,
                "dimension_count = 2",
            ),
            (
                vec![("llama.attention.key_length", 4, 8u32.to_le_bytes().to_vec())],
                Some([1.0; 2]),
                "rope_freqs.weight",
            ),
            (vec![], Some([1.0, 0.0]), "rope_freqs.weight"),
            (vec![("llama.attention.key_length", 8, text("4"))], None, "llama.attention.key_length"),
            (vec![("llama.attention.value_length", 8, text("4"))], None, "llama.attention.value_length"),
            (vec![("llama.attention.head_count_kv", 4, vec![0; 4])], None, "llama.attention.head_count_kv"),
            (vec![("llama.rope.freq_base", 8, text("1000"))], None, "llama.rope.freq_base"),
            (vec![("llama.attention.layer_norm_rms_epsilon", 6, vec![0; 4])], None, "layer_norm_rms_epsilon"),
        ]
        .into_iter()
        .enumerate()
        {
            let error = file(&format!("wrong{at}"), &more, factors).expect_err(part);
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn sizes_of_any_shape_are_counted() {
        let most = u32::MAX;
        let config = Config {
            blocks: most,
            width: most,
            hidden: most,
            heads: most,
            key_heads: most,
            head_width: 1,
            vocabulary: most,
            context: most,
            rates: Vec::new(),
            epsilon: 1e-5,
            tied: false,
        };
        assert_eq!(config.bytes(4), u64::MAX);
        let small = Config {
            blocks: 1,
            width: 8,
            hidden: 12,
            heads: 2,
            key_heads: 1,
            head_width: 4,
            vocabulary: 16,
            context: 8,
            ..config
        };
        // Query and output, key and value, the three of the feed-forward part, two tables; three norms.
        assert_eq!(small.bytes(2), 2 * (2 * 8 * 8 + 2 * 8 * 4 + 3 * 8 * 12 + 2 * 16 * 8) + 4 * 3 * 8);
    }
}
