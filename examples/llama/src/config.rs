//! What a `LLaMA` model is made of.

use std::fmt::{self, Display};
use std::path::Path;

use crate::error::Error;
use crate::gguf::{Gguf, Value};

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
    pub rope_base: f32,
    pub epsilon: f32,
    /// Whether the logits' matrix is the embedding's.
    pub tied: bool,
}

/// The tensors of a block.
const BLOCK: [&str; 9] = [
    "attn_norm.weight",
    "attn_q.weight",
    "attn_k.weight",
    "attn_v.weight",
    "attn_output.weight",
    "ffn_norm.weight",
    "ffn_gate.weight",
    "ffn_up.weight",
    "ffn_down.weight",
];

impl Config {
    pub fn of_gguf(file: &Gguf) -> Result<Self, Error> {
        let architecture = file.text("general.architecture")?;
        if architecture != "llama" {
            return Err(unsupported(file, "general.architecture", architecture));
        }
        let count = |name: &str| file.count(&format!("llama.{name}"));
        let (width, heads) = (count("embedding_length")?, count("attention.head_count")?);
        let head_width = match count("rope.dimension_count") {
            Ok(own) if u64::from(own) * u64::from(heads) != u64::from(width) => {
                return Err(unsupported(file, "llama.rope.dimension_count", &own.to_string()));
            }
            _ => width / heads,
        };
        for key in file.keys().filter(|key| key.starts_with("llama.rope.scal")) {
            match file.get(key) {
                Some(Value::Text(text)) if text == "none" => {}
                Some(Value::Number(1.0)) => {}
                other => return Err(unsupported(file, "RoPE scaling", &format!("{key}: {other:?}"))),
            }
        }
        let vocabulary = file.texts("tokenizer.ggml.tokens")?.len() as u32;
        let config = Self {
            blocks: count("block_count")?,
            width,
            hidden: count("feed_forward_length")?,
            heads,
            key_heads: count("attention.head_count_kv").unwrap_or(heads),
            head_width,
            vocabulary,
            context: count("context_length")?,
            rope_base: file.number("llama.rope.freq_base").unwrap_or(10_000.0),
            epsilon: file.number("llama.attention.layer_norm_rms_epsilon")?,
            tied: !file.tensors().contains_key("output.weight"),
        };
        config.check(file.path())?;
        // What is there changes what the model computes.
        let known = |name: &str| {
            let block = name.strip_prefix("blk.").and_then(|rest| rest.split_once('.'));
            let number =
                block.is_some_and(|(number, _)| number.parse().is_ok_and(|at: u32| at < config.blocks));
            match block {
                Some((_, own)) => number && BLOCK.contains(&own),
                None => ["token_embd.weight", "output_norm.weight", "output.weight"].contains(&name),
            }
        };
        match file.tensors().keys().find(|name| !known(name)) {
            Some(name) => Err(unsupported(file, "the tensor", name)),
            None => Ok(config),
        }
    }

    /// Refuses what the shaders are not made for.
    pub fn check(&self, path: &Path) -> Result<(), Error> {
        let Self { heads, key_heads, head_width, width, hidden, vocabulary, .. } = *self;
        let divides =
            heads.is_multiple_of(key_heads) && u64::from(width) == u64::from(heads) * u64::from(head_width);
        let fours = [width, hidden, vocabulary].iter().all(|length| length.is_multiple_of(4));
        if divides && fours && head_width == 64 {
            return Ok(());
        }
        Err(Error::Unsupported {
            path: path.to_owned(),
            what: "a layer's shape",
            value: format!(
                "{heads} heads of {head_width}, {key_heads} of keys, width {width}, hidden {hidden}, {vocabulary} tokens \
                 (heads have 64 elements here, and rows a multiple of four)"
            ),
        })
    }

    /// The numbers of the matrices, and those of the norms.
    pub fn numbers(&self) -> [u64; 2] {
        let [width, hidden, keys] = [self.width, self.hidden, self.key_width()].map(u64::from);
        let block = 2 * width * (width + keys) + 3 * width * hidden;
        let tables = if self.tied { 1 } else { 2 };
        let blocks = u64::from(self.blocks);
        [blocks * block + tables * u64::from(self.vocabulary) * width, (2 * blocks + 1) * width]
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
