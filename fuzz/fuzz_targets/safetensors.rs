#![no_main]
//! `adapter_model.safetensors`, beside a good `adapter_config.json`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydralora_fuzz::read(bytes, "adapter_model.safetensors", "peft_lora", "adapter_config.json"));
