//! A model's files, of either kind, by GGUF's names.

use std::path::Path;

use hydralora::checkpoint::hugging_face_name;

use crate::config::Config;
use crate::error::Error;
use crate::gguf::Gguf;
use crate::huggingface::Folder;
use crate::tokenizer::Tokenizer;

pub enum Source {
    Gguf(Gguf),
    HuggingFace(Folder),
}

impl Source {
    pub fn open(path: &Path) -> Result<Self, Error> {
        if path.is_dir() {
            Folder::open(path).map(Self::HuggingFace)
        } else {
            Gguf::open(path).map(Self::Gguf)
        }
    }

    pub fn config(&self) -> Result<Config, Error> {
        match self {
            Self::Gguf(file) => Config::of_gguf(file),
            Self::HuggingFace(folder) => Ok(folder.config.clone()),
        }
    }

    pub fn tokenizer(&self) -> Result<Tokenizer, Error> {
        match self {
            Self::Gguf(file) => Tokenizer::of_gguf(file),
            Self::HuggingFace(folder) => Tokenizer::of_file(&folder.tokenizer()),
        }
    }

    /// The numbers of a tensor by its name in GGUF.
    pub fn read(&self, name: &str, shape: [u32; 2], config: &Config) -> Result<Vec<f32>, Error> {
        let folder = match self {
            Self::Gguf(file) => {
                let numbers = file.read(name, shape)?;
                let turned = name.ends_with("attn_q.weight") || name.ends_with("attn_k.weight");
                return Ok(if turned { halves(&numbers, shape[1], config) } else { numbers });
            }
            Self::HuggingFace(folder) => folder,
        };
        let module = name.strip_suffix(".weight").unwrap_or(name);
        let other = match module {
            "token_embd" => "model.embed_tokens".to_owned(),
            "output_norm" => "model.norm".to_owned(),
            "output" => "lm_head".to_owned(),
            block => match (hugging_face_name(block), block.split('.').nth(1)) {
                (Some(projection), _) => projection,
                (None, number) => {
                    let norm = if block.ends_with("attn_norm") {
                        "input_layernorm"
                    } else {
                        "post_attention_layernorm"
                    };
                    format!("model.layers.{}.{norm}", number.unwrap_or_default())
                }
            },
        };
        folder.read(&format!("{other}.weight"), shape)
    }
}

/// Rows in Hugging Face's order, in which adapters have them, too: pairs of a head are its elements i and i + half. GGUF has
/// them side by side.
fn halves(numbers: &[f32], columns: u32, config: &Config) -> Vec<f32> {
    let half = config.head_width as usize / 2;
    let rows: Vec<&[f32]> = numbers.chunks(columns as usize).collect();
    let head = |head: &[&[f32]]| -> Vec<f32> {
        let [first, second] = [0, 1].map(|side| (0..half).map(move |i| 2 * i + side));
        first.chain(second).flat_map(|row| head[row]).copied().collect()
    };
    rows.chunks(2 * half).flat_map(head).collect()
}
