#![no_main]
//! The index of a language model's files with weights.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydralora_fuzz::read_model(bytes, "model.safetensors.index.json"));
