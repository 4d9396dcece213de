//! Text as tokens, and back.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use tokenizers::models::bpe::BPE;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{
    AddedToken, DecodeStream, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer as Inner,
};

use crate::error::Error;
use crate::gguf::Gguf;

pub struct Tokenizer {
    /// Of the file that it was read from.
    path: PathBuf,
    inner: Inner,
    /// The token in front of a prompt, where a GGUF file wants one. Hugging Face's tokenizers know it themselves.
    first: Option<u32>,
    ends: Vec<u32>,
}

/// How GGUF files mark tokens that are no parts of words: those that control a model, and those that a user added.
const CONTROL: i128 = 3;
const USER_DEFINED: i128 = 4;

/// Where `LLaMA` 3 cuts a text.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl Tokenizer {
    /// GPT-2's byte-level pairs, with the merges that the file has.
    pub(crate) fn of_gguf(file: &Gguf) -> Result<Self, Error> {
        let unsupported = |what, value: &str| {
            Err(Error::Unsupported { path: file.path().to_owned(), what, value: value.to_owned() })
        };
        let model = file.text("tokenizer.ggml.model")?;
        if model != "gpt2" {
            return unsupported("tokenizer.ggml.model", model);
        }
        let pre = file.text("tokenizer.ggml.pre")?;
        if !["smollm", "gpt-2", "llama-bpe"].contains(&pre) {
            return unsupported("tokenizer.ggml.pre", pre);
        }
        let tokens = file.texts("tokenizer.ggml.tokens")?;
        let kinds = file.wholes("tokenizer.ggml.token_type")?;
        if !kinds.is_empty() && kinds.len() != tokens.len() {
            return Err(file.wrong("tokenizer.ggml.token_type", "an array with a kind for each token"));
        }
        let added = |kind: i128| -> Vec<AddedToken> {
            let own = tokens.iter().zip(&kinds).filter(|(_, own)| **own == kind);
            own.map(|(token, _)| AddedToken::from(token.clone(), kind == CONTROL)).collect()
        };
        let vocabulary: ahash::AHashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
        let pair = |merge: String| merge.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned()));
        let merges: Option<Vec<_>> = file.texts("tokenizer.ggml.merges")?.into_iter().map(pair).collect();
        let whole = |(a, b): &&(String, String)| {
            [a, b, &format!("{a}{b}")].into_iter().all(|token| vocabulary.contains_key(token))
        };
        let merges = merges.filter(|merges| merges.iter().all(|merge| whole(&merge)));
        let merges = merges.ok_or_else(|| {
            file.wrong("tokenizer.ggml.merges", "pairs of tokens that are a token together")
        })?;
        let path = file.path();
        let model = BPE::builder().vocab_and_merges(vocabulary, merges).ignore_merges(pre == "llama-bpe");
        let mut inner = Inner::new(guarded(path, || model.build())?);
        inner.with_pre_tokenizer(Some(Sequence::new(guarded(path, || pre_tokenizer(pre))?)));
        inner.with_decoder(Some(ByteLevel::default()));
        guarded(path, || inner.add_special_tokens(added(CONTROL)))?;
        guarded(path, || inner.add_tokens(added(USER_DEFINED)))?;
        // Where a file says nothing, llama.cpp puts a token in front for LLaMA 3 alone.
        let begins = file.flag("tokenizer.ggml.add_bos_token")?.unwrap_or(pre == "llama-bpe");
        let first = file.token("tokenizer.ggml.bos_token_id")?.filter(|_| begins);
        let ends = ["tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id"].map(|key| file.token(key));
        let [end_of_sequence, end_of_turn] = ends;
        let ends = end_of_sequence?.into_iter().chain(end_of_turn?).collect();
        Ok(Self { path: path.to_owned(), inner, first, ends })
    }

    /// Hugging Face's own file, and the tokens after which a text ends.
    pub(crate) fn of_file(path: &Path, ends: Vec<u32>) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|error| Error::Io { path: path.to_owned(), error })?;
        let mut inner = guarded(path, || Inner::from_bytes(&text))?;
        // Texts are cut into windows here.
        guarded(path, || inner.with_truncation(None).map(drop))?;
        inner.with_padding(None);
        Ok(Self { path: path.to_owned(), inner, first: None, ends })
    }

    /// The largest token that it may give, those in front of a prompt and behind it too.
    pub(crate) fn largest(&self) -> Result<u32, Error> {
        let all = self.inner.get_vocab(true);
        Ok(all.into_values().chain(self.prompt("")?).max().unwrap_or(0))
    }

    /// The tokens of a text, and no others.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        Ok(guarded(&self.path, || self.inner.encode(text, false))?.get_ids().to_vec())
    }

    /// The tokens of a text that a model shall go on with, with that in front which the model was trained to see there.
    pub fn prompt(&self, text: &str) -> Result<Vec<u32>, Error> {
        let own = guarded(&self.path, || self.inner.encode(text, true))?;
        Ok(self.first.into_iter().chain(own.get_ids().iter().copied()).collect())
    }

    /// The tokens after which a text ends.
    pub fn ends(&self) -> &[u32] {
        &self.ends
    }

    pub fn decode(&self, tokens: &[u32]) -> Result<String, Error> {
        guarded(&self.path, || self.inner.decode(tokens, false))
    }

    /// Decodes one token after the other.
    pub fn stream(&self) -> Stream<'_> {
        Stream { path: &self.path, inner: self.inner.decode_stream(false) }
    }
}

/// Tokens that become a text one after the other.
pub struct Stream<'a> {
    path: &'a Path,
    inner: DecodeStream<
        'a,
        ModelWrapper,
        NormalizerWrapper,
        PreTokenizerWrapper,
        PostProcessorWrapper,
        DecoderWrapper,
    >,
}

impl Stream<'_> {
    /// What another token adds to the text: nothing while a character is not yet whole.
    pub fn push(&mut self, token: u32) -> Result<String, Error> {
        Ok(guarded(self.path, || self.inner.step(token))?.unwrap_or_default())
    }
}

/// How a text is cut before its bytes are joined to tokens.
fn pre_tokenizer(pre: &str) -> tokenizers::Result<Vec<PreTokenizerWrapper>> {
    let bytes = ByteLevel::new(false, false, true);
    Ok(match pre {
        "smollm" => vec![Digits::new(true).into(), bytes.into()],
        "llama-bpe" => {
            let pattern = SplitPattern::Regex(LLAMA_3.to_owned());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false)?;
            vec![split.into(), bytes.use_regex(false).into()]
        }
        _ => vec![bytes.into()],
    })
}

/// What `call` gives. A file that makes no sense lets `tokenizers` panic now and then; it is no reason for us to.
fn guarded<T>(path: &Path, call: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, Error> {
    let damaged = |_| Err("it makes no sense, so that reading or using it panics".into());
    let result = catch_unwind(AssertUnwindSafe(call)).unwrap_or_else(damaged);
    result.map_err(|error: tokenizers::Error| Error::Tokenizer {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    use super::{Tokenizer, pre_tokenizer};
    use crate::config::tests::{open, text, texts};
    use crate::error::Error;

    /// The parts of a text. Spaces are `Ġ` as in GPT-2's alphabet.
    fn parts(pre: &str, text: &str) -> Vec<String> {
        let mut cut = PreTokenizedString::from(text);
        for step in pre_tokenizer(pre).expect("steps") {
            step.pre_tokenize(&mut cut).expect("parts");
        }
        let parts = cut.get_splits(OffsetReferential::Original, OffsetType::Byte);
        parts.into_iter().map(|(part, ..)| part.to_owned()).collect()
    }

    #[test]
    fn texts_are_cut_as_the_models_were_trained() {
        let text = "I'LL pay 12345 (now)";
        assert_eq!(parts("gpt-2", text), ["I", "'", "LL", "Ġpay", "Ġ12345", "Ġ(", "now", ")"]);
        let digits = ["I", "'", "LL", "Ġpay", "Ġ", "1", "2", "3", "4", "5", "Ġ(", "now", ")"];
        assert_eq!(parts("smollm", text), digits);
        assert_eq!(parts("llama-bpe", text), ["I", "'LL", "Ġpay", "Ġ", "123", "45", "Ġ(", "now", ")"]);
    }

    /// The tokenizer of a file with six tokens, of which one controls the model and one was added, and these entries.
    fn tokenizer(name: &str, pre: &str, more: &[(&str, u32, Vec<u8>)]) -> Result<Tokenizer, Error> {
        let kinds = [3i32, 1, 1, 1, 1, 4].into_iter().flat_map(i32::to_le_bytes).collect();
        let kinds = [5u32.to_le_bytes().to_vec(), 6u64.to_le_bytes().to_vec(), kinds].concat();
        let mut entries = vec![
            ("tokenizer.ggml.model", 8, text("gpt2")),
            ("tokenizer.ggml.pre", 8, text(pre)),
            ("tokenizer.ggml.tokens", 9, texts(&["<|im_start|>", "a", "b", "ab", "<", "<b a>"])),
            ("tokenizer.ggml.token_type", 9, kinds),
            ("tokenizer.ggml.merges", 9, texts(&["a b"])),
            ("tokenizer.ggml.bos_token_id", 4, vec![2, 0, 0, 0]),
            ("tokenizer.ggml.eos_token_id", 4, vec![0; 4]),
        ];
        entries.extend_from_slice(more);
        open(&format!("tokens-{name}"), &entries, None, Tokenizer::of_gguf)
    }

    #[test]
    fn files_say_which_tokens_are_no_text_and_which_comes_first() -> Result<(), Error> {
        let plain = tokenizer("plain", "smollm", &[])?;
        assert_eq!(plain.encode("ab<|im_start|>a<b a><")?, [3, 0, 1, 5, 4]);
        assert_eq!(plain.decode(&[3, 0, 1, 5, 4])?, "ab<|im_start|>a<b a><");
        assert_eq!((plain.prompt("ab")?, plain.ends(), plain.largest()?), (vec![3], &[0][..], 5));
        let mut stream = plain.stream();
        let parts = [3, 0, 1].map(|token| stream.push(token).expect("a text"));
        assert_eq!(parts, ["ab", "<|im_start|>", "a"]);
        let flag = |flag: u8| ("tokenizer.ggml.add_bos_token", 7, vec![flag]);
        let first = tokenizer("first", "smollm", &[flag(1)])?;
        assert_eq!((first.encode("ab")?, first.prompt("ab")?), (vec![3], vec![2, 3]));
        assert_eq!(tokenizer("llama", "llama-bpe", &[])?.prompt("ab")?, [2, 3]);
        assert_eq!(tokenizer("without", "llama-bpe", &[flag(0)])?.prompt("ab")?, [3]);
        let one_kind = [5u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec(), vec![1, 0, 0, 0]].concat();
        for (name, pre, entry, part) in [
            ("default", "default", flag(0), "tokenizer.ggml.pre = default"),
            ("model", "smollm", ("tokenizer.ggml.model", 8, text("llama")), "tokenizer.ggml.model = llama"),
            ("flag", "smollm", ("tokenizer.ggml.add_bos_token", 4, vec![1, 0, 0, 0]), "add_bos_token"),
            ("kinds", "smollm", ("tokenizer.ggml.token_type", 9, texts(&["3"])), "token_type"),
            // One kind for six tokens.
            ("few", "smollm", ("tokenizer.ggml.token_type", 9, one_kind), "a kind for each token"),
            ("pair", "smollm", ("tokenizer.ggml.merges", 9, texts(&["a b", "ab"])), "tokenizer.ggml.merges"),
            // Longer than every token, and of parts that are no tokens.
            ("long", "smollm", ("tokenizer.ggml.merges", 9, texts(&["<|im_start|> a"])), "token together"),
            ("parts", "smollm", ("tokenizer.ggml.merges", 9, texts(&["x y"])), "token together"),
        ] {
            let error = tokenizer(name, pre, &[entry]).err().expect(part).to_string();
            assert!(error.contains(part), "{error}");
        }
        Ok(())
    }
}
