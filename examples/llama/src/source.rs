//! A model's files, of either kind.

use std::path::Path;

use hydralora::checkpoint::gguf_name;

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

    /// The name that the files have for the weights of a module, which is named as in Hugging Face's models.
    pub fn name(&self, module: &str) -> String {
        let own = match (self, module) {
            (Self::HuggingFace(_), _) => module.to_owned(),
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
    pub fn read(&self, module: &str, shape: [u32; 2], config: &Config) -> Result<Vec<f32>, Error> {
        let name = self.name(module);
        match self {
            Self::HuggingFace(folder) => folder.read(&name, shape),
            Self::Gguf(file) => {
                let numbers = file.read(&name, shape)?;
                let turned = module.ends_with("q_proj") || module.ends_with("k_proj");
                Ok(if turned { halves(&numbers, shape[1], config) } else { numbers })
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
