//! A model's files, of either kind.

use std::collections::BTreeSet;
use std::path::Path;

use hydralora::checkpoint::gguf_name;

use crate::adapters::Projection;
use crate::config::{Config, ROPE_FACTORS};
use crate::error::Error;
use crate::gguf::Gguf;
use crate::huggingface::Folder;
use crate::tokenizer::Tokenizer;

enum Files {
    Gguf(Gguf),
    HuggingFace(Folder),
}

/// A model's files, read but for the numbers of its tensors. All of these are there, and no others.
pub struct Source {
    files: Files,
    pub config: Config,
    pub tokenizer: Tokenizer,
}

impl Source {
    /// Opens a GGUF file or a Hugging Face folder.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let own = if path.is_dir() {
            let folder = Folder::open(path)?;
            let (config, ends) = (folder.config.clone(), folder.ends.clone());
            let tokenizer = Tokenizer::of_file(&folder.tokenizer(), ends)?;
            Self { files: Files::HuggingFace(folder), config, tokenizer }
        } else {
            let file = Gguf::open(path)?;
            let (config, tokenizer) = (Config::of_gguf(&file)?, Tokenizer::of_gguf(&file)?);
            Self { files: Files::Gguf(file), config, tokenizer }
        };
        let (token, vocabulary) = (own.tokenizer.largest()?, own.config.vocabulary);
        if token >= vocabulary {
            return Err(Error::Vocabulary { path: path.to_owned(), token, vocabulary });
        }
        own.check()?;
        Ok(own)
    }

    /// Whether every tensor is there in its shape, and none besides, which would change what the model computes.
    fn check(&self) -> Result<(), Error> {
        let mut known = BTreeSet::new();
        for (module, shape) in self.modules() {
            let name = self.name(&module);
            match &self.files {
                Files::Gguf(file) => file.find(&name, shape).map(drop)?,
                Files::HuggingFace(folder) => folder.check(&name, shape)?,
            }
            known.insert(name);
        }
        let (path, unknown) = match &self.files {
            Files::Gguf(file) => {
                let mut names = file.tensors().keys().map(String::as_str);
                (file.path(), names.find(|name| !known.contains(*name) && *name != ROPE_FACTORS))
            }
            Files::HuggingFace(folder) => {
                // Some save a tied head as well, and older versions the rates that are in the configuration, too.
                let without = |name: &str| {
                    (self.config.tied && name == "lm_head.weight") || name.ends_with(".rotary_emb.inv_freq")
                };
                (folder.path(), folder.names().find(|name| !known.contains(*name) && !without(name)))
            }
        };
        match unknown {
            None => Ok(()),
            Some(name) => Err(Error::Unsupported {
                path: path.to_owned(),
                what: "the tensor",
                value: format!("`{name}`"),
            }),
        }
    }

    /// Every module with weights, with its rows and columns; a norm has one row.
    pub fn modules(&self) -> impl Iterator<Item = (String, [u32; 2])> {
        let config = &self.config;
        let (norm, table) = ([1, config.width], [config.vocabulary, config.width]);
        let outside = [("model.embed_tokens", table), ("model.norm", norm), ("lm_head", table)];
        let outside = outside.into_iter().take(if config.tied { 2 } else { 3 });
        let block = move |index: u32| {
            let norms = ["input_layernorm", "post_attention_layernorm"].into_iter();
            let norms = norms.map(move |own| (format!("model.layers.{index}.{own}"), norm));
            let matrix = move |own: Projection| {
                let [d_in, d_out] = own.shape(config);
                (own.name(index), [d_out, d_in])
            };
            norms.chain(Projection::ALL.into_iter().map(matrix))
        };
        outside.map(|(name, shape)| (name.to_owned(), shape)).chain((0..config.blocks).flat_map(block))
    }

    /// The name that the files have for the weights of a module, which is named as in Hugging Face's models.
    pub fn name(&self, module: &str) -> String {
        let own = match (&self.files, module) {
            (Files::HuggingFace(_), _) => module.to_owned(),
            (_, "model.embed_tokens") => "token_embd".to_owned(),
            (_, "model.norm") => "output_norm".to_owned(),
            (_, "lm_head") => "output".to_owned(),
            _ => gguf_name(module).unwrap_or_else(|| {
                let norm = module.replace("model.layers.", "blk.").replace("input_layernorm", "attn_norm");
                norm.replace("post_attention_layernorm", "ffn_norm")
            }),
        };
        format!("{own}.weight")
    }

    /// The numbers of a module's weights.
    pub fn read(&self, module: &str, shape: [u32; 2]) -> Result<Vec<f32>, Error> {
        let name = self.name(module);
        match &self.files {
            Files::HuggingFace(folder) => folder.read(&name, shape),
            Files::Gguf(file) => {
                let numbers = file.read(&name, shape)?;
                let turned = module.ends_with("q_proj") || module.ends_with("k_proj");
                Ok(if turned { halves(&numbers, shape[1], &self.config) } else { numbers })
            }
        }
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
