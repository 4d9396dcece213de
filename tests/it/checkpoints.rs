//! Adapters that other programs saved are read whole or refused with the reason, whatever is wrong with them.

use std::path::{Path, PathBuf};

use hydralora::checkpoint::{Checkpoint, CheckpointError, Training, gguf_name, save, to_bytes};
use hydralora::{
    Adapter, Config, Dropout, Element, Kernels, Operation, Router, Sharing, Stack, StackDescriptor,
    Weighting, wgpu,
};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::common::{Folder, GPU};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/checkpoints").join(name)
}

/// A copy of a fixture without what it should give.
fn copy_of(name: &str, copy: &str) -> Folder {
    let folder = Folder::new(copy);
    for file in [tensors_of(name), "adapter_config.json"] {
        std::fs::copy(fixture(name).join(file), folder.0.join(file)).expect("a copy");
    }
    folder
}

/// The same with another text in place of one of the settings'.
fn with_setting(name: &str, copy: &str, [from, to]: [&str; 2]) -> Folder {
    let folder = copy_of(name, copy);
    let text = std::fs::read_to_string(folder.0.join("adapter_config.json")).expect("the settings");
    assert!(text.contains(from), "{from} in {text}");
    folder.file("adapter_config.json", text.replacen(from, to, 1).as_bytes());
    folder
}

/// Reads everything.
fn load(path: &Path) -> Result<Vec<(String, Config, Adapter)>, CheckpointError> {
    let checkpoint = Checkpoint::open(path)?;
    let modules = checkpoint.modules().iter();
    modules
        .map(|module| Ok((module.name.clone(), module.config, checkpoint.adapter(&module.name)?)))
        .collect()
}

/// Checks that a checkpoint is refused, and that the message has all of the texts.
fn refused(folder: &Folder, texts: &[&str]) {
    let message = load(&folder.0).expect_err("it is to be refused").to_string();
    assert!(texts.iter().all(|text| message.contains(text)), "{message}, not {texts:?}");
}

#[test]
fn layers_are_what_the_settings_say() {
    let modules = load(&fixture("hydralora_official")).expect("a checkpoint");
    assert_eq!(modules.len(), 6);
    let (name, config, adapter) = &modules[0];
    assert_eq!(name, "model.layers.0.mlp.down_proj");
    let expected = Config { d_in: 96, d_out: 64, rank: 4, experts: 4, scaling: 8.0, ..Config::default() };
    assert_eq!(*config, expected);
    assert_eq!([adapter.a.len(), adapter.router.len(), adapter.b.len()], [4 * 96, 4 * 96, 4]);
    let modules = load(&fixture("peft_rslora")).expect("a checkpoint");
    let numbers: Vec<_> =
        modules.iter().map(|(name, config, _)| (name.as_str(), config.rank, config.scaling)).collect();
    assert_eq!(numbers, [("q_proj", 8, (24.0 / 8f64.sqrt()) as f32), ("v_proj", 4, 16.0 / 2.0)]);
}

#[test]
fn relatives_are_what_their_writers_say() {
    let checkpoint = Checkpoint::open(&fixture("peft_lily")).expect("a checkpoint");
    let module = &checkpoint.modules()[0];
    let lily = Config {
        d_in: 56,
        d_out: 40,
        rank: 4,
        experts: 3,
        scaling: 2.0,
        router: Router::Latent,
        ..Config::default()
    };
    assert_eq!((module.config, module.averages_gates), (lily, true));
    let modules = load(&fixture("moe_peft_mola")).expect("a checkpoint");
    let weighting = Weighting::TopK { k: 2, renormalise: true };
    assert!(modules.iter().all(|(_, config, _)| {
        (config.experts, config.weighting, config.a) == (5, weighting, Sharing::Separate)
    }));
    let modules = load(&fixture("moe_peft_loramoe")).expect("a checkpoint");
    let experts: Vec<_> = modules.iter().map(|(name, config, _)| (name.as_str(), config.experts)).collect();
    let expected =
        [("mlp.down_proj", 3), ("mlp.gate_proj", 3), ("self_attn.o_proj", 1), ("self_attn.q_proj", 1)];
    let expected = expected.map(|(name, experts)| (format!("model.layers.0.{name}"), experts));
    assert!(experts.iter().copied().eq(expected.iter().map(|(name, experts)| (name.as_str(), *experts))));
}

/// With a length of zero, a few bytes could claim any number of experts.
#[test]
fn an_empty_lily_is_refused() {
    let folder = copy_of("peft_lily", "empty-lily");
    let from = written("empty-lily-tensors", &[("m.lily_B.weight", [4_294_967_295, 0])]);
    let file = "adapter_model.safetensors";
    std::fs::copy(from.0.join(file), folder.0.join(file)).expect("a copy");
    let path = folder.0.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).expect("the settings");
    let text = text.replace("\"num_B\": 3", "\"num_B\": 4294967295").replace("\"r\": 4", "\"r\": 1");
    std::fs::write(&path, text).expect("a file");
    refused(&folder, &["m.lily_B", "4294967295 * 1 x d_out"]);
}

/// `MoLA`'s own code does not save how many experts a token takes.
#[test]
fn what_mola_does_not_save_has_to_be_added() {
    let tensors = [
        ("m.lora_A.default_0.weight", [8, 64]),
        ("m.lora_A.default_1.weight", [8, 64]),
        ("m.lora_B.default_0.weight", [48, 8]),
        ("m.lora_B.default_1.weight", [48, 8]),
        ("m.router.router.weight", [2, 64]),
    ];
    let folder = written("mola", &tensors);
    refused(&folder, &["top_k", "MoLA does not save"]);
    let path = folder.0.join("adapter_config.json");
    let text = std::fs::read_to_string(&path).expect("the settings");
    std::fs::write(&path, text.replacen('{', "{\"top_k\": 1,", 1)).expect("a file");
    let modules = load(&folder.0).expect("a checkpoint");
    assert_eq!(modules[0].1.weighting, Weighting::TopK { k: 1, renormalise: true });
}

#[test]
fn modules_can_have_other_names() {
    let open = || Checkpoint::open(&fixture("hydralora_official")).expect("a checkpoint");
    let names = |name: &str| gguf_name(name).unwrap_or_else(|| name.to_owned());
    let checkpoint = open().with_names(names).expect("different names");
    assert_eq!(checkpoint.modules()[0].name, "blk.0.ffn_down");
    let module = open().adapter("model.layers.0.mlp.down_proj").expect("a module");
    assert_eq!(checkpoint.adapter("blk.0.ffn_down").expect("a module"), module);
    let message = open().with_names(|_| "one".to_owned()).expect_err("they are the same").to_string();
    assert!(message.contains("one"), "{message}");
}

#[test]
fn what_would_change_the_arithmetic_is_refused_by_name() {
    let dora = load(&fixture("peft_dora")).expect_err("it is to be refused").to_string();
    assert!(dora.contains("use_dora = true"), "{dora}");
    for (at, [from, to]) in [
        ["\"use_qalora\": false", "\"use_qalora\": true"],
        ["\"lora_bias\": false", "\"lora_bias\": true"],
        ["\"arrow_config\": null", "\"arrow_config\": {\"top_k\": 2}"],
        ["\"alora_invocation_tokens\": null", "\"alora_invocation_tokens\": [1]"],
        ["\"use_bdlora\": null", "\"use_bdlora\": {\"nblocks\": 2}"],
        ["\"kasa_config\": null", "\"kasa_config\": {\"beta\": 1}"],
        ["\"monteclora_config\": null", "\"monteclora_config\": {\"samples\": 1}"],
        ["\"velora_config\": null", "\"velora_config\": {\"groups\": 1}"],
        ["\"modules_to_save\": null", "\"modules_to_save\": [\"head\"]"],
        ["\"layer_replication\": null", "\"layer_replication\": [[0, 1]]"],
        ["\"peft_type\": \"LORA\"", "\"peft_type\": \"LOHA\""],
        ["\"bias\": \"none\"", "\"bias\": \"all\""],
        ["\"init_lora_weights\": false", "\"init_lora_weights\": \"pissa\""],
        ["\"use_rslora\": false", "\"use_tomorrows_lora\": true"],
    ]
    .into_iter()
    .enumerate()
    {
        let folder = with_setting("peft_lora", &format!("option{at}"), [from, to]);
        let option = to.split('"').nth(1).expect("a name");
        refused(&folder, &[option, "not supported"]);
    }
}

#[test]
fn settings_that_disagree_with_the_tensors_are_refused() {
    for (at, (name, [from, to], texts)) in [
        ("hydralora_official", ["\"lora_nums\": 4", "\"lora_nums\": 3"], &["one of 3", "4 of them"][..]),
        ("hydralora_official", ["\"r\": 4", "\"r\": 8"], &["lora_A", "8 x 96", "4 x 96"]),
        ("peft_lora", ["\"r\": 8", "\"r\": 8.5"], &["r in adapter_config.json", "8.5", "whole number"]),
        ("peft_lora", ["\"r\": 8", "\"s\": null"], &["r in adapter_config.json", "missing"]),
        ("peft_lora", ["\"lora_alpha\": 16", "\"lora_alpha\": \"16\""], &["lora_alpha", "finite number"]),
        ("peft_rslora", ["\"v_proj\": 4", "\"v_.*\": 4"], &["rank_pattern", "not regular expressions"]),
        ("peft_lora", ["\"task_type\"", "\"num_B\": 2, \"task\""], &["num_B = 2", "not supported"]),
        ("peft_lora", ["\"task_type\"", "\"scaling\": 2.0, \"task\""], &["scaling = 2.0", "not supported"]),
        ("hydralora_official", ["\"lora_nums\": 4", "\"lora_nums\": 4, \"top_k\": 2"], &["top_k = 2"]),
        ("peft_lily", ["\"num_B\": 3", "\"num_B\": 2"], &["lily_B", "2 * 4 x d_out", "12 x 40"]),
        ("peft_lily", ["\"num_B\": 3", "\"num_C\": null"], &["num_B", "missing"]),
        ("peft_lily", ["\"scaling\": 2.0", "\"scaling\": null"], &["scaling", "missing"]),
        ("peft_lily", ["\"LILY\"", "\"LORA\""], &["not supported"]),
        ("moe_peft_mola", ["\"top_k\": 2", "\"top_k\": null"], &["top_k", "missing"]),
        ("moe_peft_mola", ["\"top_k\": 2", "\"top_k\": 6"], &["6"]),
        ("moe_peft_mola", ["\"num_experts\": 5", "\"num_experts\": 4"], &["one of 4", "5 of them"]),
        (
            "moe_peft_mola",
            ["\"routing_strategy\": \"mola\"", "\"routing_strategy\": \"mixlora\""],
            &["routing_strategy"],
        ),
        ("moe_peft_loramoe", ["\"LORAMOE\"", "\"MIXLORA\""], &["peft_type", "MIXLORA"]),
    ]
    .into_iter()
    .enumerate()
    {
        refused(&with_setting(name, &format!("setting{at}"), [from, to]), texts);
    }
}

/// Writes plain LoRA whose tensors are as given.
fn written(copy: &str, tensors: &[(&str, [u64; 2])]) -> Folder {
    let folder = copy_of("peft_lora", copy);
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (key, [rows, columns]) in tensors {
        let start = end;
        end += 4 * rows * columns;
        let info =
            serde_json::json!({ "dtype": "F32", "shape": [rows, columns], "data_offsets": [start, end] });
        header.insert((*key).to_owned(), info);
    }
    let header = serde_json::Value::Object(header).to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + end as usize, 0);
    std::fs::write(folder.0.join("adapter_model.safetensors"), bytes).expect("a file");
    folder
}

#[test]
fn tensors_that_are_missing_unexpected_or_misshapen_are_named() {
    let (a, b) = (("m.lora_A.weight", [8, 64]), ("m.lora_B.weight", [48, 8]));
    load(&written("good", &[a, b]).0).expect("a good one");
    for (at, (tensors, texts)) in [
        (&[a][..], &["module `m`", "lora_B", "missing"][..]),
        (&[b], &["module `m`", "lora_A", "missing"]),
        (&[a, ("m.lora_B.weight", [8, 48])], &["m.lora_B.weight", "48 x 8", "8 x 48", "transpose"]),
        (&[a, ("m.lora_B.weight", [48, 7])], &["m.lora_B.weight", "48 x 8", "48 x 7"]),
        (&[a, b, ("m.bias", [1, 1])], &["m.bias", "another tensor"]),
        (&[a, b, ("m.lora_embedding_A", [1, 1])], &["lora_embedding_A"]),
        (&[a, b, ("m.lora_C.weight", [1, 1])], &["m.lora_C.weight", "another tensor"]),
        (&[a, b, ("m.lora_B0.weight", [48, 8])], &["m.lora_B0.weight", "there once"]),
        (&[a, b, ("base_model.model.m.lora_B.weight", [48, 8])], &["lora_B.weight", "there once"]),
        (&[a, ("m.lora_B0.weight", [48, 8]), ("m.lora_B2.weight", [48, 8])], &["lora_B1", "missing"]),
        (&[a, ("m.lora_B0.weight", [48, 8]), ("m.lora_B1.weight", [48, 8])], &["lora_route", "missing"]),
        (&[a, b, ("m.lora_route.weight", [2, 64])], &["lora_route", "1 x 64", "2 x 64"]),
    ]
    .into_iter()
    .enumerate()
    {
        refused(&written(&format!("tensors{at}"), tensors), texts);
    }
}

#[test]
fn numbers_that_are_not_finite_are_loaded_only_when_asked_for() {
    let folder = written("infinite", &[("m.lora_A.weight", [8, 64]), ("m.lora_B.weight", [48, 8])]);
    let path = folder.0.join("adapter_model.safetensors");
    let mut bytes = std::fs::read(&path).expect("the file");
    let at = bytes.len() - 4;
    bytes[at..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).expect("a file");
    refused(&folder, &["m.lora_B.weight", "1 numbers", "the first at 383"]);
    let checkpoint = Checkpoint::open(&folder.0).expect("a checkpoint").with_any_numbers();
    assert!(checkpoint.adapter("m").expect("any numbers").b[0][383].is_nan());
}

/// The file of a fixture that holds tensors.
fn tensors_of(name: &str) -> &'static str {
    let torch = name == "hydralora_official" || name.starts_with("moe_peft");
    if torch { "adapter_model.bin" } else { "adapter_model.safetensors" }
}

#[test]
fn truncated_files_are_refused_at_every_byte() {
    for name in ["hydralora_official", "peft_lora"] {
        let folder = copy_of(name, &format!("truncated-{name}"));
        let path = folder.0.join(tensors_of(name));
        let whole = std::fs::read(&path).expect("the file");
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).expect("a file");
            assert!(load(&folder.0).is_err(), "{name}, the first {length} bytes");
        }
    }
}

#[test]
fn flipped_bits_never_panic() {
    let rng = &mut StdRng::seed_from_u64(1);
    for name in ["hydralora_official", "peft_lora"] {
        let folder = copy_of(name, &format!("flipped-{name}"));
        for file in [tensors_of(name), "adapter_config.json"] {
            let path = folder.0.join(file);
            let whole = std::fs::read(&path).expect("the file");
            for _ in 0..3000 {
                let mut bytes = whole.clone();
                for _ in 0..rng.random_range(1..4) {
                    // Headers, directories and pickles lie at the ends.
                    let near = rng.random_range(0..bytes.len().min(5000));
                    let at = if rng.random() { near } else { bytes.len() - 1 - near };
                    bytes[at] ^= 1 << rng.random_range(0..8);
                }
                std::fs::write(&path, bytes).expect("a file");
                // Either it is refused, or what is loaded has the shapes of its layer.
                for (name, config, adapter) in load(&folder.0).into_iter().flatten() {
                    let packed = config.layout().and_then(|layout| layout.pack(&adapter));
                    assert!(packed.is_ok(), "{name}: {config}");
                }
            }
            std::fs::write(&path, whole).expect("a file");
        }
    }
}

/// What the fuzz targets have found worth keeping, and where they began: `fuzz/`.
#[test]
fn the_fuzzers_corpus_is_read_or_refused() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, name, file) in [
        ("settings", "peft_lora", "adapter_config.json"),
        ("safetensors", "peft_lora", "adapter_model.safetensors"),
        ("torch", "hydralora_official", "adapter_model.bin"),
    ] {
        let folder = copy_of(name, &format!("corpus-{target}"));
        let mut read = 0;
        for entry in std::fs::read_dir(corpus.join(target)).expect("a corpus") {
            let path = entry.expect("an entry").path();
            std::fs::copy(&path, folder.0.join(file)).expect("a copy");
            for (name, config, adapter) in load(&folder.0).into_iter().flatten() {
                let packed = config.layout().and_then(|layout| layout.pack(&adapter));
                assert!(packed.is_ok(), "{}: {name}: {config}", path.display());
            }
            read += 1;
        }
        assert!(read > 0, "{target} has no corpus");
    }
}

#[test]
fn pickles_execute_nothing() {
    let folder = copy_of("hydralora_official", "pickle");
    let path = folder.0.join("adapter_model.bin");
    let whole = std::fs::read(&path).expect("the file");
    // A name of the same length in the place of a function that the tensors need.
    let name = b"torch._utils\n_rebuild_tensor_v2\n";
    let at = whole.windows(name.len()).position(|window| window == name).expect("the function's name");
    let mut bytes = whole.clone();
    bytes[at..at + name.len()].copy_from_slice(b"subprocess._\ncheck_output_____\n\n");
    std::fs::write(&path, &bytes).expect("a file");
    refused(&folder, &["subprocess._", "nothing was executed"]);
    // Tuples in tuples, deeper than any stack.
    let at = whole.windows(2).position(|window| window == b"\x80\x02").expect("the pickle");
    let mut bytes = whole;
    bytes[at + 2..at + 4000].fill(b'\x85');
    bytes[at + 2] = b')';
    std::fs::write(&path, &bytes).expect("a file");
    refused(&folder, &["deep"]);
}

#[test]
fn missing_files_are_named() {
    let folder = Folder::new("empty");
    refused(&folder, &["adapter_config.json"]);
    std::fs::copy(fixture("peft_lora").join("adapter_config.json"), folder.0.join("adapter_config.json"))
        .expect("a copy");
    refused(&folder, &["neither adapter_model.safetensors nor adapter_model.bin"]);
    let message = load(&folder.0.join("nowhere")).expect_err("it is not there").to_string();
    assert!(message.contains("nowhere"), "{message}");
}

#[test]
fn nested_folders_and_single_files_are_found() {
    let folder = Folder::new("nested");
    let inner = folder.0.join("default");
    std::fs::create_dir_all(&inner).expect("a folder");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        std::fs::copy(fixture("peft_lora").join(file), inner.join(file)).expect("a copy");
    }
    let direct = load(&fixture("peft_lora")).expect("a checkpoint");
    assert_eq!(load(&folder.0).expect("it is within"), direct);
    assert_eq!(load(&inner.join("adapter_model.safetensors")).expect("a file"), direct);
}

#[test]
fn saved_adapters_come_back_bit_for_bit() {
    let folder = Folder::new("saved");
    let layer = Config { d_in: 36, d_out: 20, rank: 4, experts: 3, scaling: 1.7, ..Config::default() };
    let plain = Config { experts: 1, ..layer };
    for modules in [
        vec![("a.q", layer), ("b.q", Config { rank: 8, scaling: 0.3, router: Router::Latent, ..layer })],
        vec![("m", Config { a: Sharing::Separate, ..layer })],
        vec![("m", Config { weighting: Weighting::TopK { k: 2, renormalise: true }, ..layer })],
        vec![
            ("q", plain),
            ("a.q", Config { rank: 2, scaling: 3.0, ..plain }),
            ("v", Config { scaling: 1.9, ..plain }),
        ],
        // The name of the second is the end of the first's.
        vec![
            ("block.fc", Config { scaling: 2.0, ..plain }),
            ("fc", Config { rank: 2, scaling: 1.0, ..plain }),
        ],
    ] {
        let of = |name: &str| {
            let (seed, (_, config)) =
                modules.iter().enumerate().find(|(_, (own, _))| *own == name).expect("a module");
            Adapter::initialise_random_heads(config, seed as u64, 0.7)
        };
        save(&folder.0, &modules, |name| Ok(of(name)?)).expect("a folder to write to");
        let loaded = load(&folder.0).expect("what was saved");
        assert_eq!(loaded.len(), modules.len());
        for (name, config, adapter) in loaded {
            let (_, saved) = modules.iter().find(|(own, _)| *own == name).expect("a module");
            // A plain layer's router means nothing.
            assert_eq!((&config, adapter), (saved, of(&name).expect("a layer")), "{name}");
        }
        assert_eq!(folder.names(), ["adapter_config.json", "adapter_model.safetensors"]);
        // The same without files: the bytes are those of the file, and all that is needed.
        let bytes = to_bytes(&modules, |name| Ok(of(name)?)).expect("nothing to write to");
        let file = std::fs::read(folder.0.join("adapter_model.safetensors")).expect("it was written");
        assert_eq!(bytes, file);
        let read = Checkpoint::from_bytes("picked.safetensors", bytes).expect("what was saved");
        assert_eq!(read.modules().len(), modules.len());
        for (name, config) in &modules {
            let module = read.modules().iter().find(|module| module.name == *name).expect("it was saved");
            assert_eq!(module.config, *config, "{name}");
            assert_eq!(read.adapter(name).expect("its matrices"), of(name).expect("a layer"), "{name}");
        }
    }
}

#[test]
fn bytes_that_are_no_adapter_are_refused_by_their_name() {
    let config = Config { d_in: 12, d_out: 8, rank: 2, experts: 2, ..Config::default() };
    let whole = to_bytes(&[("m", config)], |_| Ok(Adapter::initialise(&config, 1)?)).expect("bytes");
    let reason = |bytes: &[u8]| {
        let refused = Checkpoint::from_bytes("picked.safetensors", bytes).expect_err("it is no adapter");
        refused.to_string()
    };
    for broken in
        [&whole[..0], &whole[..7], &whole[..whole.len() / 2], &whole[..whole.len() - 1], &[0xff; 64]]
    {
        assert!(reason(broken).contains("picked.safetensors"), "{}", reason(broken));
    }
    // What another program saved has its settings in a file beside it.
    let other = fixture("hydralora_official").join(tensors_of("hydralora_official"));
    if other.extension().is_some_and(|extension| extension == "safetensors") {
        let message = reason(&std::fs::read(other).expect("a fixture"));
        assert!(message.contains("adapter_config.json"), "{message}");
    }
}

#[test]
fn what_a_checkpoint_has_no_place_for_is_not_saved() {
    let folder = Folder::new("unstorable");
    let layer = Config { d_in: 36, d_out: 20, rank: 4, experts: 3, ..Config::default() };
    for (config, option) in [
        (Config { weighting: Weighting::Sigmoid, ..layer }, "weighting"),
        (Config { router_bias: true, ..layer }, "router_bias"),
        (Config { temperature: 2.0, ..layer }, "temperature"),
        (Config { router: Router::GivenWeights, ..layer }, "router"),
        (Config { router: Router::Latent, d_in: 4, ..layer }, "router"),
    ] {
        let saved = save(&folder.0, &[("m", config)], |_| Ok(Adapter::initialise(&config, 1)?));
        let message = saved.expect_err("it has no place").to_string();
        assert!(message.contains(option) && message.contains("no place"), "{message}");
    }
    let mixed = [("m", layer), ("n", Config { experts: 2, ..layer })];
    let saved = save(&folder.0, &mixed, |_| Ok(Adapter::initialise(&layer, 1)?));
    assert!(saved.expect_err("they differ").to_string().contains("experts = 2 for `n`"));
}

#[test]
fn a_failed_save_leaves_the_old_checkpoint() {
    let folder = Folder::new("failed");
    let config = Config { d_in: 36, d_out: 20, rank: 4, experts: 3, ..Config::default() };
    let modules = [("m", config), ("n", config)];
    save(&folder.0, &modules, |_| Ok(Adapter::initialise(&config, 1)?)).expect("a folder to write to");
    let before = load(&folder.0).expect("what was saved");
    let wrong = |name: &str| {
        let adapter = Adapter::initialise(&config, 2)?;
        Ok(if name == "n" { Adapter { a: vec![0.0; 3], ..adapter } } else { adapter })
    };
    assert!(matches!(save(&folder.0, &modules, wrong), Err(CheckpointError::Library(_))));
    assert_eq!(load(&folder.0).expect("the old one"), before);
    assert_eq!(folder.names(), ["adapter_config.json", "adapter_model.safetensors"]);
}

#[test]
fn a_stack_takes_a_checkpoint() {
    let checkpoint = Checkpoint::open(&fixture("hydralora_official")).expect("a checkpoint");
    let kernels = Kernels::new(&GPU.device, &GPU.queue);
    let modules = checkpoint.configs();
    let operations = &[Operation::Forward(hydralora::ForwardOptions::default())];
    let descriptor =
        StackDescriptor { modules: &modules, capacity: 4.into(), operations, ..Default::default() };
    let stack = Stack::new(&kernels, &descriptor).expect("a stack");
    stack.load(&checkpoint).expect("the checkpoint's modules");
    for place in stack.pack().places() {
        let parameters = GPU.read_blocking(&stack.parameters()[place.buffer()]).expect("the device runs");
        let adapter = place.layout().unpack(&parameters[place.elements()]).expect("as many as it has");
        assert_eq!(adapter, checkpoint.adapter(place.name()).expect("a module"), "{}", place.name());
    }
    // Another scaling is another layer, although its shapes are the same.
    let mut other = modules.clone();
    other[1].1.scaling *= 2.0;
    let other = Stack::new(&kernels, &StackDescriptor { modules: &other, ..descriptor }).expect("a stack");
    let message = other.load(&checkpoint).expect_err("another layer").to_string();
    assert!(message.contains(modules[1].0) && message.contains("scaling"), "{message}");
    let zeros = GPU.read_blocking(&other.parameters()[0]).expect("the device runs");
    assert!(zeros.iter().all(|&number| number == 0.0), "something was loaded");
    let descriptor = StackDescriptor { modules: &modules[1..], ..descriptor };
    let stack = Stack::new(&kernels, &descriptor).expect("a stack");
    let message = stack.load(&checkpoint).expect_err("one is missing").to_string();
    assert!(message.contains(modules[0].0), "{message}");
}

/// Steps of training a stack on its own state, with gradients that depend on the step alone.
fn train(stack: &Stack, steps: std::ops::RangeInclusive<u32>) {
    for step in steps {
        for place in stack.pack().places() {
            let gradients =
                Adapter::initialise_random_heads(place.config(), step.into(), 1.0).expect("a layer");
            let packed = place.layout().pack(&gradients).expect("its shapes");
            let buffer = &stack.gradients()[place.buffer()];
            GPU.queue.write_buffer(buffer, place.offset(), &Element::F32.encode(&packed));
        }
        let optimiser = stack.optimiser().expect("a stack that trains");
        optimiser.set_step(&GPU.queue, step, 1e-2).expect("a step");
        let mut encoder = GPU.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        optimiser.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
        GPU.queue.submit([encoder.finish()]);
    }
}

/// The bits of everything that training changes.
fn bits(stack: &Stack) -> Vec<u32> {
    let buffers = stack.parameters().iter().chain(stack.moments());
    buffers.flat_map(|buffer| GPU.read_blocking(buffer).expect("the device runs")).map(f32::to_bits).collect()
}

#[test]
fn training_goes_on_with_equal_bits() {
    let kernels = Kernels::new(&GPU.device, &GPU.queue);
    let layer = Config { d_in: 36, d_out: 20, rank: 3, experts: 3, ..Config::default() };
    let modules = [
        ("a", layer),
        ("b", Config { d_in: 13, rank: 5, ..layer }),
        ("c", Config { experts: 3, d_out: 7, ..layer }),
    ];
    let operations = &Operation::training_step(Element::F32);
    let descriptor =
        StackDescriptor { modules: &modules, capacity: 4.into(), operations, ..Default::default() };
    let stack = |seed: u64| {
        let stack = Stack::new(&kernels, &descriptor).expect("a stack");
        for (name, config) in &modules {
            let adapter = Adapter::initialise_random_heads(config, seed, 1.0).expect("a layer");
            stack.write(name, &adapter).expect("its own module");
        }
        stack
    };
    let whole = stack(1);
    train(&whole, 1..=7);
    let folder = Folder::new("training");
    let first = stack(1);
    train(&first, 1..=3);
    first.save(&GPU, &folder.0).expect("a folder to write to");
    first.save_training(&GPU, &folder.0, 3).expect("a folder to write to");
    assert_eq!(folder.names(), ["adapter_config.json", "adapter_model.safetensors", "training.safetensors"]);
    let saved = Training::open(&folder.0).expect("what was saved");
    let second = stack(2);
    assert_eq!(second.resume(&saved).expect("its own modules"), 3);
    assert!(bits(&second) == bits(&first), "it resumes with other bits");
    train(&second, 4..=7);
    assert!(bits(&second) == bits(&whole), "it goes on with other bits");
    assert!(bits(&second) != bits(&first), "it does not train");
    // What others read is the same.
    let checkpoint = Checkpoint::open(&folder.0).expect("what was saved");
    assert_eq!(checkpoint.adapter("b").expect("a module"), first.read(&GPU, "b").expect("a module"));
    assert_ne!(checkpoint.adapter("b").expect("a module"), second.read(&GPU, "b").expect("a module"));
}

/// Whatever the router is: what others read has no place for most of these.
#[test]
fn training_goes_on_with_any_layer() {
    let kernels = Kernels::new(&GPU.device, &GPU.queue);
    let layer = Config { d_in: 36, d_out: 20, rank: 3, experts: 3, ..Config::default() };
    let one = Config { experts: 1, ..layer };
    let top = |renormalise| Weighting::TopK { k: 2, renormalise };
    let layers = [
        Config { router_bias: true, temperature: 0.5, ..layer },
        Config { router: Router::Latent, router_bias: true, ..layer },
        Config { weighting: Weighting::Sigmoid, ..layer },
        Config { weighting: Weighting::NormalisedSigmoid, a: Sharing::Separate, ..layer },
        Config { weighting: top(false), ..layer },
        Config { weighting: top(true), ..layer },
        Config { router: Router::GivenWeights, ..layer },
        Config { router: Router::GivenLogits, ..layer },
        Config { router: Router::Latent, rank: 36, ..layer },
        Config { weighting: Weighting::Sigmoid, router_bias: true, ..one },
        Config { router: Router::Latent, temperature: 2.0, a: Sharing::Separate, ..one },
    ];
    let names: Vec<String> = (0..layers.len()).map(|at| format!("layer {at}")).collect();
    let modules: Vec<_> = names.iter().map(String::as_str).zip(layers).collect();
    let operations = &Operation::training_step(Element::F32);
    let descriptor =
        StackDescriptor { modules: &modules, capacity: 4.into(), operations, ..Default::default() };
    let stack = || Stack::new(&kernels, &descriptor).expect("a stack");
    let [first, second] = [stack(), stack()];
    train(&first, 1..=3);
    let folder = Folder::new("any-layer");
    first.save_training(&GPU, &folder.0, 3).expect("a folder to write to");
    let saved = Training::open(&folder.0).expect("what was saved");
    assert_eq!(second.resume(&saved).expect("its own modules"), 3);
    assert!(bits(&second) == bits(&first), "it resumes with other bits");
    for stack in [&first, &second] {
        train(stack, 4..=5);
    }
    assert!(bits(&second) == bits(&first), "it goes on with other bits");
}

/// One expert has no router: whatever is said of it is not stored, and does not count.
#[test]
fn one_expert_is_loaded_whatever_its_router() {
    let kernels = Kernels::new(&GPU.device, &GPU.queue);
    let plain = Config { d_in: 36, d_out: 20, rank: 3, experts: 1, ..Config::default() };
    let dropout = Some(Dropout::new(0.05));
    let config = Config { router: Router::Latent, temperature: 2.0, a: Sharing::Separate, dropout, ..plain };
    let descriptor = StackDescriptor { modules: &[("m", config)], capacity: 4.into(), ..Default::default() };
    let stack = Stack::new(&kernels, &descriptor).expect("a stack");
    let folder = Folder::new("one-expert");
    stack.save(&GPU, &folder.0).expect("a folder to write to");
    let saved = Checkpoint::open(&folder.0).expect("what was saved");
    stack.load(&saved).expect("its own checkpoint");
    assert!((saved.dropout() - 0.05).abs() < 1e-6, "{}", saved.dropout());
}

#[test]
fn states_of_training_that_do_not_fit_are_refused() {
    let kernels = Kernels::new(&GPU.device, &GPU.queue);
    let config = Config { d_in: 36, d_out: 20, rank: 3, experts: 3, ..Config::default() };
    let stack = |config: Config, operations: &[Operation]| {
        let modules = &[("m", config)];
        let descriptor = StackDescriptor { modules, capacity: 4.into(), operations, ..Default::default() };
        Stack::new(&kernels, &descriptor).expect("a stack")
    };
    let step = Operation::training_step(Element::F32);
    let folder = Folder::new("unfit");
    stack(config, &step).save_training(&GPU, &folder.0, 5).expect("a folder to write to");
    let saved = Training::open(&folder.0).expect("what was saved");
    for (other, [own, found]) in [
        (Config { rank: 4, ..config }, ["rank 4", "rank 3"]),
        (Config { scaling: 3.0, ..config }, ["scaling 3", "scaling 1"]),
        (Config { weighting: Weighting::Sigmoid, ..config }, ["sigmoid", "softmax"]),
    ] {
        let message = stack(other, &step).resume(&saved).expect_err("another layer").to_string();
        assert!(message.contains(own) && message.contains(found), "{message}");
    }
    // What is dropped is no part of the layer.
    let dropout = Some(Dropout::new(0.1));
    assert_eq!(stack(Config { dropout, ..config }, &step).resume(&saved).expect("the same layer"), 5);
    let message = stack(config, &step[..1]).resume(&saved).expect_err("no optimiser").to_string();
    assert!(message.contains("no optimiser"), "{message}");
    let message = saved.module("n", &config).expect_err("it was not saved").to_string();
    assert!(message.contains("n.lora_A") && message.contains("missing"), "{message}");
    let path = folder.0.join("training.safetensors");
    let whole = std::fs::read(&path).expect("the file");
    for length in (0..whole.len()).step_by(7) {
        std::fs::write(&path, &whole[..length]).expect("a file");
        assert!(Training::open(&folder.0).is_err(), "the first {length} bytes");
    }
    let at = whole.windows(6).position(|window| window == b"\"step\"").expect("the step");
    let mut without = whole;
    without[at + 1] = b'S';
    std::fs::write(&path, without).expect("a file");
    let message = Training::open(&folder.0).expect_err("no step").to_string();
    assert!(message.contains("do not say the step"), "{message}");
}

/// An archive with one entry, stored but for what is changed about it.
fn archive(name: &str, method: u16, claimed: u32, at: u32) -> Vec<u8> {
    let content = b"\x80\x02}q\x00.";
    let fields = |method: u16| {
        let mut fields = Vec::new();
        fields.extend([20u16, 0, method, 0, 0].into_iter().flat_map(u16::to_le_bytes));
        fields.extend([0, claimed, claimed].into_iter().flat_map(u32::to_le_bytes));
        fields.extend([name.len() as u16, 0].into_iter().flat_map(u16::to_le_bytes));
        fields
    };
    let mut bytes = [b"PK\x03\x04", &fields(method)[..], name.as_bytes(), content].concat();
    let start = bytes.len() as u32;
    bytes.extend([b"PK\x01\x02\x14\x00", &fields(method)[..], &[0; 10]].concat());
    bytes.extend(at.to_le_bytes());
    bytes.extend(name.as_bytes());
    let size = bytes.len() as u32 - start;
    bytes.extend([b"PK\x05\x06", &[0; 4][..], &[1, 0, 1, 0]].concat());
    bytes.extend([size, start].into_iter().flat_map(u32::to_le_bytes));
    bytes.extend([0; 2]);
    bytes
}

#[test]
fn bombs_and_paths_out_of_archives_are_refused() {
    let folder = copy_of("hydralora_official", "bomb");
    let path = folder.0.join("adapter_model.bin");
    for (bytes, texts) in [
        // No tensors, but a good archive.
        (archive("archive/data.pkl", 0, 6, 0), &["no tensors"][..]),
        (archive("archive/data.pkl", 8, 6, 0), &["compressed"]),
        (archive("archive/data.pkl", 0, 0xffff_fff0, 0), &["in a file of"]),
        (archive("archive/data.pkl", 0, 6, 1 << 30), &["bytes at"]),
        (archive("../data.pkl", 0, 6, 0), &["leads out"]),
        (archive("/archive/data.pkl", 0, 6, 0), &["leads out"]),
        (archive("a\\data.pkl", 0, 6, 0), &["leads out"]),
    ] {
        std::fs::write(&path, bytes).expect("a file");
        refused(&folder, texts);
    }
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_broken_ones_are_named() {
    use std::os::unix::fs::symlink;
    let folder = Folder::new("links");
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        symlink(fixture("peft_lora").join(file), folder.0.join(file)).expect("a link");
    }
    assert_eq!(load(&folder.0).expect("linked files"), load(&fixture("peft_lora")).expect("a checkpoint"));
    // To itself, and to nothing.
    for target in ["adapter_model.safetensors", "nowhere"] {
        let link = folder.0.join("adapter_model.safetensors");
        std::fs::remove_file(&link).expect("the link");
        symlink(target, &link).expect("a link");
        refused(&folder, &["adapter_model.safetensors"]);
    }
    // A folder within itself.
    let folder = Folder::new("loop");
    symlink(".", folder.0.join("default")).expect("a link");
    refused(&folder, &["adapter_config.json"]);
}

/// The environment variable with the folder that a process of its own saves into, over and over.
#[cfg(unix)]
const SAVE_INTO: &str = "HYDRALORA_TEST_SAVE_INTO";

/// Two checkpoints that differ in every number but have the same sizes.
#[cfg(unix)]
fn version(seed: u64) -> (Config, Adapter) {
    let config = Config { d_in: 360, d_out: 200, rank: 8, experts: 3, ..Config::default() };
    (config, Adapter::initialise_random_heads(&config, seed, 1.0).expect("a layer"))
}

#[cfg(unix)]
#[test]
#[ignore = "run by a_killed_or_a_full_save_leaves_the_old_checkpoint"]
fn save_over_and_over() {
    let folder = std::env::var_os(SAVE_INTO).expect("a folder");
    for seed in 1.. {
        let (config, adapter) = version(seed % 2);
        let saved = save(folder.as_ref(), &[("m", config)], |_| Ok(adapter.clone()));
        if seed == 1 {
            println!("saved: {saved:?}");
        }
    }
}

#[cfg(unix)]
#[test]
fn a_killed_or_a_full_save_leaves_the_old_checkpoint() {
    let folder = Folder::new("killed");
    let (config, first) = version(0);
    save(&folder.0, &[("m", config)], |_| Ok(first.clone())).expect("a folder to write to");
    let check = || {
        let loaded = load(&folder.0).expect("a whole checkpoint");
        assert!([0, 1].iter().any(|&seed| loaded[0].2 == version(seed).1), "numbers of two checkpoints");
    };
    let executable = std::env::current_exe().expect("this test");
    let arguments = ["--exact", "checkpoints::save_over_and_over", "--ignored", "--nocapture"];
    for kill in 0..20 {
        let mut child = std::process::Command::new(&executable)
            .args(arguments)
            .env(SAVE_INTO, &folder.0)
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("this test again");
        std::thread::sleep(std::time::Duration::from_millis(60 + 7 * kill));
        child.kill().expect("a running process");
        child.wait().expect("a killed process");
        check();
    }
    // A process whose files may have no more than a few blocks.
    let limited = "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\"";
    let mut child = std::process::Command::new("sh")
        .args(["-c", limited])
        .arg(&executable)
        .args(arguments)
        .env(SAVE_INTO, &folder.0)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a shell");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().expect("its output")));
    let said = lines.map_while(Result::ok).find(|line| line.starts_with("saved:")).expect("what came of it");
    child.kill().expect("a running process");
    child.wait().expect("a killed process");
    assert!(said.contains("Io"), "{said}");
    check();
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by a_full_filesystem_leaves_the_old_checkpoint"]
fn save_on_a_tiny_filesystem() {
    let folder = PathBuf::from(std::env::var_os(SAVE_INTO).expect("a folder"));
    let (config, first) = version(0);
    save(&folder, &[("m", config)], |_| Ok(first.clone())).expect("room for one checkpoint");
    let (config, second) = version(1);
    let full =
        save(&folder, &[("m", config)], |_| Ok(second.clone())).expect_err("no room for two").to_string();
    assert!(full.contains("No space left"), "{full}");
    assert_eq!(load(&folder).expect("the old one")[0].2, first);
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors"]);
    println!("as it should be");
}

/// In a filesystem of its own that holds one checkpoint, but not two.
#[cfg(target_os = "linux")]
#[test]
fn a_full_filesystem_leaves_the_old_checkpoint() {
    let folder = Folder::new("tiny");
    let script =
        "mount -t tmpfs -o size=64k tmpfs \"$HYDRALORA_TEST_SAVE_INTO\" || exit 77; exec \"$0\" \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "checkpoints::save_on_a_tiny_filesystem", "--ignored", "--nocapture"])
        .env(SAVE_INTO, &folder.0)
        .output()
        .expect("util-linux's unshare");
    let [said, wrong] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    if output.status.code() == Some(77) || wrong.starts_with("unshare:") {
        eprintln!("this system lets nobody mount a filesystem, so a full one was not tried: {wrong}");
        return;
    }
    assert!(said.contains("as it should be"), "{said}{wrong}");
}
