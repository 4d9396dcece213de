#![no_main]
//! `config.json`, beside the other files of a good language model.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydralora_fuzz::read_model(bytes, "config.json"));
