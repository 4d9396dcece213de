#![no_main]
//! One of three files with a language model's weights.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydralora_fuzz::read_model(bytes, "model-00003-of-00003.safetensors"));
