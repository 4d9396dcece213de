#![no_main]
//! `adapter_model.bin`, beside a good `adapter_config.json`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydralora_fuzz::read(bytes, "adapter_model.bin", "hydralora_official", "adapter_config.json"));
