#![no_main]
//! A language model in one file, with its tokens.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydralora_fuzz::read_gguf(bytes));
