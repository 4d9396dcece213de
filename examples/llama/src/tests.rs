//! The tiny models on a device: what splitting matrices and computing activations again must not change.

use std::path::Path;

use hydralora::device::{Gpu, NO_ADAPTER_HELP, adapters_from_env};
use hydralora::{Dropout, Element, Kernels, wgpu};

use crate::adapters::{Adapters, Design, Projection};
use crate::error::Error;
use crate::generate::generate;
use crate::model::{Keep, Model, Use};
use crate::shader::Shaders;
use crate::source::Source;
use crate::weights::Weights;

const SEQUENCE: u32 = 8;
const TOKENS: u32 = 2 * SEQUENCE;

/// A device on which bindings have at most so many bytes.
fn device(binding: Option<u64>) -> Gpu {
    limited(|limits| {
        if let Some(bytes) = binding {
            limits.max_storage_buffer_binding_size = bytes;
        }
    })
}

/// A device with other limits than its adapter's.
fn limited(change: impl FnOnce(&mut wgpu::Limits)) -> Gpu {
    pollster::block_on(async {
        let adapter = adapters_from_env().await.into_iter().next().expect(NO_ADAPTER_HELP);
        let mut required_limits = adapter.limits();
        change(&mut required_limits);
        let descriptor = wgpu::DeviceDescriptor { required_limits, ..Default::default() };
        let (device, queue) = adapter.request_device(&descriptor).await.expect("a device");
        Gpu { device, queue }
    })
}

fn load(gpu: &Gpu, name: &str, element: Element) -> Result<Weights, Error> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name);
    Weights::load(gpu, &Source::open(&path)?, element)
}

/// What a step of training gives.
struct Trained {
    losses: Vec<f32>,
    gradients: Vec<f32>,
    written: Vec<u32>,
}

fn train(gpu: &Gpu, weights: &Weights, keep: Keep, dropout: f32) -> Result<Trained, Error> {
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    let dropout = Some(Dropout::new(dropout));
    let layer = hydralora::Config { rank: 4, experts: 3, scaling: 2.0, dropout, ..Default::default() };
    let targets = [Projection::Query, Projection::Key, Projection::Output, Projection::Up, Projection::Down];
    let design = Design { targets: &targets, layer, capacity: TOKENS };
    let adapters = Adapters::new(&kernels, &weights.config, &design, 1)?;
    let stack = &adapters.stack;
    adapters.write_random_heads()?;
    let shaders = gpu.block_on(Shaders::compile(&gpu.device, &weights.config, weights.element))??;
    let how = Use { capacity: TOKENS, context: TOKENS, training: Some(keep) };
    let mut model = gpu.block_on(Model::new(gpu, &kernels, weights, &shaders, Some(&adapters), how))??;
    model.batch().set_random(&gpu.queue, 5, 1);
    let ids: Vec<u32> = (0..=TOKENS).map(|at| at * 37 % weights.config.vocabulary).collect();
    let batch = [&ids[..TOKENS as usize], &ids[1..]];
    model.train(gpu, batch, SEQUENCE, None)?;
    // Where they lie depends on the limits, too.
    let gradients = stack.pack().places().iter();
    let gradients = gradients
        .map(|place| gpu.read_part_blocking(&stack.gradients()[place.buffer()], place.elements()))
        .collect::<Result<Vec<_>, _>>()?
        .concat();
    let losses = gpu.read_blocking(model.loss_buffer())?;
    adapters.publish(gpu);
    let how = Use { training: None, ..how };
    let mut model = gpu.block_on(Model::new(gpu, &kernels, weights, &shaders, Some(&adapters), how))??;
    let mut written = Vec::new();
    gpu.block_on(generate(gpu, &mut model, &ids[..5], 8, &[], |token| written.push(token)))??;
    Ok(Trained { losses, gradients, written })
}

/// The largest difference, beside the largest number.
fn difference(own: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(own.len(), expected.len());
    let largest = |numbers: &mut dyn Iterator<Item = f32>| numbers.map(f32::abs).fold(0.0, f32::max);
    let size = largest(&mut expected.iter().copied());
    assert!(size > 0.0);
    largest(&mut own.iter().zip(expected).map(|(own, expected)| own - expected)) / size
}

#[test]
fn split_matrices_compute_the_same() -> Result<(), Error> {
    for (name, element, allowed, parts) in [
        // Only the tables.
        ("tiny", Element::F16, 1 << 16, 2),
        ("tiny", Element::Bf16, 42_000, 3),
        // Every matrix but those of keys and values.
        ("tiny", Element::F32, 41_000, 5),
        // A tied table.
        ("llama3", Element::F32, 20_480, 3),
    ] {
        let (whole, limited) = (device(None), device(Some(allowed)));
        let [weights, split] = [&whole, &limited].map(|gpu| load(gpu, name, element));
        let (weights, split) = (weights?, split?);
        assert_eq!([weights.embedding.parts.len(), split.head().parts.len()], [1, parts], "{name}");
        let expected = train(&whole, &weights, Keep::Activations, 0.0)?;
        let own = train(&limited, &split, Keep::Activations, 0.0)?;
        // Forward, every number is the same sum; backward, the parts' sums are added up.
        let (losses, gradients) =
            (difference(&own.losses, &expected.losses), difference(&own.gradients, &expected.gradients));
        println!("{name} in {element}: losses off by {losses:.1e}, gradients by {gradients:.1e}");
        assert!(losses <= 1e-6, "losses are off by {losses}");
        assert!(gradients <= 1e-5, "gradients are off by {gradients}");
        assert_eq!(own.written, expected.written);
    }
    Ok(())
}

#[test]
fn what_does_not_fit_is_named() -> Result<(), Error> {
    let error =
        load(&device(Some(30_000)), "tiny", Element::F32).err().expect("rows of 512 bytes").to_string();
    assert!(error.contains("`model.layers.0.self_attn.q_proj.weight`") && error.contains("30000"), "{error}");
    let gpu = device(Some(20_000));
    let weights = load(&gpu, "tiny", Element::F16)?;
    let error =
        train(&gpu, &weights, Keep::Activations, 0.0).err().expect("logits of 20480 bytes").to_string();
    assert!(error.contains("`logits` of 16 tokens needs 20480 bytes"), "{error}");
    assert_eq!(Use::most_tokens(&gpu, &weights.config), 15);
    Ok(())
}

#[test]
fn gradients_from_recomputed_activations_are_equal() -> Result<(), Error> {
    let gpu = device(None);
    let weights = load(&gpu, "tiny", Element::F32)?;
    for dropout in [0.0, 0.2] {
        let [all, inputs] =
            [Keep::Activations, Keep::Inputs].map(|keep| train(&gpu, &weights, keep, dropout));
        let (all, inputs) = (all?, inputs?);
        assert_eq!(all.losses, inputs.losses);
        assert!(all.gradients.iter().any(|gradient| *gradient != 0.0));
        assert_eq!(all.gradients, inputs.gradients);
    }
    let how = |keep| Use { capacity: TOKENS, context: TOKENS, training: Some(keep) }.bytes(&weights.config);
    assert!(how(Keep::Inputs) < how(Keep::Activations));
    Ok(())
}

/// A model without adapters that writes.
fn writer(gpu: &Gpu, weights: &Weights, capacity: u32, context: u32) -> Result<Model, Error> {
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    let shaders = gpu.block_on(Shaders::compile(&gpu.device, &weights.config, weights.element))??;
    gpu.block_on(Model::new(
        gpu,
        &kernels,
        weights,
        &shaders,
        None,
        Use { capacity, context, training: None },
    ))?
}

fn write(
    gpu: &Gpu,
    model: &mut Model,
    prompt: &[u32],
    count: usize,
    ends: &[u32],
) -> Result<Vec<u32>, Error> {
    let mut written = Vec::new();
    gpu.block_on(generate(gpu, model, prompt, count, ends, |token| written.push(token)))??;
    Ok(written)
}

#[test]
fn prompts_of_any_length_are_taken_in_pieces() -> Result<(), Error> {
    let gpu = device(None);
    let weights = load(&gpu, "tiny", Element::F32)?;
    let prompt: Vec<u32> = (0..45).map(|at| at * 37 % weights.config.vocabulary).collect();
    let mut whole = writer(&gpu, &weights, 64, 64)?;
    let expected = gpu.block_on(whole.logits(&gpu, &prompt, 0))??;
    let written = write(&gpu, &mut whole, &prompt, 10, &[])?;
    assert_eq!(written.len(), 10);
    for capacity in [1, 7, 45] {
        let mut pieces = writer(&gpu, &weights, capacity, 64)?;
        let own = gpu.block_on(pieces.logits(&gpu, &prompt, 0))??;
        assert!(difference(&own, &expected) <= 1e-5, "pieces of {capacity}");
        assert_eq!(write(&gpu, &mut pieces, &prompt, 10, &[])?, written, "pieces of {capacity}");
    }
    // It stops before a token that ends the text.
    let first = written.iter().position(|token| *token == written[4]).expect("it is there");
    assert_eq!(write(&gpu, &mut whole, &prompt, 10, &[written[4]])?, written[..first]);
    Ok(())
}

#[test]
fn what_a_model_has_no_room_for_is_refused() -> Result<(), Error> {
    let gpu = device(None);
    let weights = load(&gpu, "tiny", Element::F32)?;
    let mut model = writer(&gpu, &weights, 16, 20)?;
    let prompt = [1; 15];
    let error = write(&gpu, &mut model, &prompt, 6, &[]).expect_err("21 tokens");
    assert!(matches!(error, Error::Context { tokens: 21, context: 20 }), "{error}");
    assert_eq!(write(&gpu, &mut model, &prompt, 5, &[])?.len(), 5);
    assert!(matches!(write(&gpu, &mut model, &[], 5, &[]), Err(Error::NoTokens)));
    let error = gpu.block_on(model.logits(&gpu, &prompt, u32::MAX))?.expect_err("a position far away");
    assert!(matches!(error, Error::Context { tokens: 4_294_967_310, context: 20 }), "{error}");
    let error = gpu.block_on(model.losses(&gpu, [&[1; 17], &[1; 17]], 8))?.expect_err("17 tokens");
    assert!(matches!(error, Error::Capacity { tokens: 17, capacity: 16 }), "{error}");
    let error = gpu.block_on(model.losses(&gpu, [&[1; 3], &[1, 320, 1]], 8))?.expect_err("a target");
    assert!(matches!(error, Error::Token { token: 320, vocabulary: 320 }), "{error}");
    let error = gpu.block_on(model.logits(&gpu, &[u32::MAX], 0))?.expect_err("a token");
    assert!(matches!(error, Error::Token { token: u32::MAX, .. }), "{error}");
    // More inputs than targets are no mistake, and nothing is written past a buffer.
    assert_eq!(gpu.block_on(model.losses(&gpu, [&[1; 40], &[1; 3]], 8))??.len(), 3);
    let error = writer(&gpu, &weights, 16, 257).err().expect("the model's context has 256");
    assert!(matches!(error, Error::LongContext { tokens: 257, context: 256 }), "{error}");
    let small = limited(|limits| limits.max_compute_workgroups_per_dimension = 100);
    let how = Use { capacity: 101, context: 8, training: None };
    let error = how.check(&small, &weights.config).expect_err("a workgroup for each token").to_string();
    assert!(
        error.contains("a step needs 101, over the device's max_compute_workgroups_per_dimension of 100"),
        "{error}"
    );
    Ok(())
}

#[test]
fn small_workgroups_are_refused() -> Result<(), Error> {
    let gpu = limited(|limits| limits.max_compute_invocations_per_workgroup = 128);
    let weights = load(&gpu, "tiny", Element::F32)?;
    let error = gpu.block_on(Shaders::compile(&gpu.device, &weights.config, weights.element))?;
    let error = error.err().expect("256 threads").to_string();
    assert!(error.contains("max_compute_invocations_per_workgroup of 128"), "{error}");
    Ok(())
}

#[test]
fn memory_is_known_before_it_is_taken() -> Result<(), Error> {
    let gpu = device(None);
    let weights = load(&gpu, "tiny", Element::F32)?;
    let kernels = Kernels::new(&gpu.device, &gpu.queue);
    for experts in [1, 4] {
        let layer = hydralora::Config { rank: 4, experts, scaling: 2.0, ..Default::default() };
        let design = Design { targets: &[Projection::Query, Projection::Down], layer, capacity: TOKENS };
        let known = design.bytes(&kernels, &weights.config)?;
        let taken = Adapters::new(&kernels, &weights.config, &design, 1)?.stack.memory().total();
        // What the stack rounds up.
        assert!(known <= taken && taken - known < 8192, "{known} bytes, but it took {taken}");
    }
    Ok(())
}

/// What the fuzz targets have found worth keeping, and where they began: `fuzz/`.
#[test]
fn the_fuzzers_corpus_is_read_or_refused() -> Result<(), Error> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let files = |target: &str| -> Vec<_> {
        let entries = std::fs::read_dir(folder.join("../../fuzz/corpus").join(target)).expect("a corpus");
        entries.map(|entry| entry.expect("an entry").path()).collect()
    };
    // A copy of a model, in which each of the corpus takes the place of a file.
    let copy = crate::huggingface::tests::copy("corpus");
    let mut read = 0;
    let mut all_of = |opened: Result<Source, Error>| -> Result<(), Error> {
        let Ok(source) = opened else { return Ok(()) };
        for (module, shape) in source.modules() {
            let numbers = source.read(&module, shape)?;
            assert_eq!(numbers.len() as u64, u64::from(shape[0]) * u64::from(shape[1]), "{module}");
        }
        read += 1;
        Ok(())
    };
    for path in files("gguf") {
        all_of(Source::open(&path))?;
    }
    for (target, file) in [
        ("config", "config.json"),
        ("index", "model.safetensors.index.json"),
        ("shard", "model-00003-of-00003.safetensors"),
    ] {
        for path in files(target) {
            std::fs::copy(&path, copy.join(file)).expect("a copy");
            all_of(Source::open(&copy))?;
        }
        std::fs::copy(folder.join("data/tiny").join(file), copy.join(file)).expect("a copy");
    }
    std::fs::remove_dir_all(&copy).expect("the folder");
    // The files that the targets began with.
    assert!(read >= 8, "{read} models");
    Ok(())
}

#[test]
fn the_readme_quotes_the_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &Path| std::fs::read_to_string(path).expect("a file");
    let files = ["lib.rs", "model.rs", "adapters.rs", "train.rs", "program/main.rs"];
    let sources = files.map(|file| read(&folder.join("src").join(file)));
    let known: Vec<&str> = sources
        .iter()
        .flat_map(|text| text.lines())
        .map(|line| line.trim_start_matches("//!").trim())
        .collect();
    let readme = read(&folder.join("README.md"));
    let mut quoted = 0;
    for block in readme.split("```rust\n").skip(1) {
        for line in block.split("```").next().expect("the code").lines().map(str::trim) {
            assert!(known.contains(&line), "`{line}` is not in the sources");
            quoted += 1;
        }
    }
    assert!(quoted > 20, "{quoted} lines");
}
