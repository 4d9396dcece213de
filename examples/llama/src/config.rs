//! What a LLaMA model is made of.

use crate::error::Error;
use crate::gguf::Gguf;

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
        for (key, plain) in [("llama.rope.scaling.type", "none"), ("llama.rope.scale_linear", "1")] {
            match file.get(key) {
                None => {}
                Some(crate::gguf::Value::Text(text)) if text == plain => {}
                Some(other) => return Err(unsupported(file, "llama.rope.scaling", &format!("{other:?}"))),
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
        let divides = config.heads.is_multiple_of(config.key_heads) && config.width == heads * head_width;
        if !divides || head_width != 64 {
            return Err(unsupported(
                file,
                "heads",
                &format!("{heads} of {head_width}, {} of keys, width {width}", config.key_heads),
            ));
        }
        Ok(config)
    }

    /// Elements of a token's keys, and of its values.
    pub fn key_width(&self) -> u32 {
        self.key_heads * self.head_width
    }
}

fn unsupported(file: &Gguf, what: &'static str, value: &str) -> Error {
    Error::Unsupported { path: file.path().to_owned(), what, value: value.to_owned() }
}
