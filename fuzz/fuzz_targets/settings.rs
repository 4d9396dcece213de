#![no_main]
//! `adapter_config.json`, beside a good `adapter_model.safetensors`.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| hydralora_fuzz::read(bytes, "adapter_config.json", "peft_lora", "adapter_model.safetensors"));
