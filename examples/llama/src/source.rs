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
            Self::Gguf(file) => return file.read(name, shape),
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
        let numbers = folder.read(&format!("{other}.weight"), shape)?;
        if !(module.ends_with("attn_q") || module.ends_with("attn_k")) {
            return Ok(numbers);
        }
        // Pairs of a head are its elements i and i + 32 there, and 2i and 2i + 1 here.
        let (columns, half) = (shape[1] as usize, config.head_width as usize / 2);
        let rows: Vec<&[f32]> = numbers.chunks(columns).collect();
        let pair = |head: usize, i: usize| [rows[2 * half * head + i], rows[2 * half * head + half + i]];
        let heads = rows.len() / (2 * half);
        Ok((0..heads)
            .flat_map(|head| (0..half).flat_map(move |i| pair(head, i)))
            .flatten()
            .copied()
            .collect())
    }
}
