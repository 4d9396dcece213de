//! Text as tokens, and back.

use std::path::Path;

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{PreTokenizerWrapper, Tokenizer as Inner};

use crate::error::Error;
use crate::gguf::Gguf;

pub struct Tokenizer(Inner);

impl Tokenizer {
    /// GPT-2's byte-level pairs, with the merges that the file has.
    pub fn of_gguf(file: &Gguf) -> Result<Self, Error> {
        let unsupported = |what, value: &str| {
            Err(Error::Unsupported { path: file.path().to_owned(), what, value: value.to_owned() })
        };
        let model = file.text("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return unsupported("tokenizer.ggml.model", model);
        }
        let pre = file.text("tokenizer.ggml.pre")?;
        if !["smollm", "gpt-2", "default"].contains(&pre) {
            return unsupported("tokenizer.ggml.pre", pre);
        }
        let vocabulary: ahash::AHashMap<String, u32> =
            file.texts("tokenizer.ggml.tokens")?.into_iter().zip(0..).collect();
        let pair = |merge: String| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        let merges: Option<Vec<_>> = file.texts("tokenizer.ggml.merges")?.into_iter().map(pair).collect();
        let merges = merges.ok_or_else(|| Error::Tokenizer("a merge without two parts".to_owned()))?;
        let model = BPE::builder().vocab_and_merges(vocabulary, merges).build().map_err(failed)?;
        let mut inner = Inner::new(model);
        let bytes = ByteLevel::new(false, false, true);
        let digits = PreTokenizerWrapper::Digits(Digits::new(true));
        let steps = if pre == "smollm" { vec![digits, bytes.into()] } else { vec![bytes.into()] };
        inner.with_pre_tokenizer(Some(Sequence::new(steps)));
        inner.with_decoder(Some(bytes));
        Ok(Self(inner))
    }

    /// Hugging Face's own file.
    pub fn of_file(path: &Path) -> Result<Self, Error> {
        let mut inner = Inner::from_file(path).map_err(failed)?;
        // Texts are cut into windows here.
        inner.with_truncation(None).map_err(failed)?;
        inner.with_padding(None);
        Ok(Self(inner))
    }

    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(self.0.encode(text, false).map_err(failed)?.get_ids().to_vec())
    }

    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        self.0.decode(tokens, false).map_err(failed)
    }
}

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
fn failed(error: tokenizers::Error) -> Error {
    Error::Tokenizer(error.to_string())
}
