//! Batches of any number of tokens. Each gives the right results, and two in one submission do not disturb
//! each other. With `Plans::Invariant`, a token has the same bits in any batch.

use hydralora::{
    AdamW, AdamWBuffers, AdamWDescriptor, AdamWHyper, Adapter, BackwardInputOptions, Batch, Bound, Capacity,
    Config, DeviceProfile, Element, Error, ForwardOptions, GateRows, GroupHyper, Groups, Kernels,
    LinearDirection, LinearOptions, Memory, Operation, Plans, Router, Stack, StackDescriptor, Tensor,
    WriteMode, wgpu,
};

use crate::common::{CONFIG, GPU, zeroed};

/// Numbers, all different.
fn numbers(count: u32) -> Vec<f32> {
    (0..count).map(|at| (at as f32 * 0.37).sin()).collect()
}

fn upload(name: &str, count: u32) -> wgpu::Buffer {
    GPU.upload(name, &numbers(count)).expect("it fits")
}

fn bits(buffer: &wgpu::Buffer) -> Vec<u32> {
    GPU.read_blocking(buffer).expect("the device runs").into_iter().map(f32::to_bits).collect()
}

/// Binds an operation to tensors with the given capacity. Returns it with the tensor called `looked_at`.
fn bind(
    kernels: &Kernels,
    operation: Operation,
    config: &Config,
    capacity: Capacity,
    looked_at: &str,
) -> (Bound, wgpu::Buffer) {
    let prepared = kernels.prepare(&operation, config, capacity).expect("it fits");
    let recording = prepared.recordings().last().expect("a recording");
    let buffers: Vec<_> = recording
        .tensors
        .iter()
        .map(|operand| (operand.name, upload(operand.name, (operand.bytes() / 4) as u32)))
        .collect();
    let tensors: Vec<_> = buffers.iter().map(|(name, buffer)| (*name, Tensor::from(buffer))).collect();
    let bound = prepared.bind(&tensors).expect("it fits");
    let buffer = buffers.into_iter().find_map(|(name, buffer)| (name == looked_at).then_some(buffer));
    (bound, buffer.expect("the operation has it"))
}

#[test]
fn a_token_has_the_same_bits_in_any_batch() {
    const MOST: u32 = 257;
    let config = Config {
        d_in: 520,
        d_out: 264,
        rank: 8,
        experts: 3,
        scaling: 1.5,
        router: Router::Latent,
        ..Default::default()
    };
    let linear = |direction| Operation::Linear(LinearOptions { direction, ..LinearOptions::default() });
    let mut varied = false;
    // For few tokens, other plans split the inner dimension.
    for busy_workgroups in [4, 256] {
        let profile = DeviceProfile { busy_workgroups, ..DeviceProfile::of(&GPU.device) };
        let kernels = &Kernels::with_profile(&GPU.device, &GPU.queue, profile);
        for (operation, name, width) in [
            (Operation::Forward(ForwardOptions::default()), "y", 264),
            (Operation::BackwardInput(BackwardInputOptions::default()), "dx", 520),
            (linear(LinearDirection::Forward), "y", 264),
            (linear(LinearDirection::Backward), "dx", 520),
        ] {
            let run = |plans: Plans, most: u32, tokens: &[u32]| -> Vec<Vec<u32>> {
                let (bound, result) =
                    bind(kernels, operation, &config, Capacity { tokens: most, plans }, name);
                let mut batch = Batch::new(kernels, most).expect("it fits");
                let run = |&tokens: &u32| {
                    batch.set(&GPU.queue, tokens).expect("a number of tokens");
                    GPU.submit(|pass| bound.encode(pass, &batch)).expect("the device runs");
                    let mut bits = bits(&result);
                    bits.truncate((tokens * width) as usize);
                    bits
                };
                tokens.iter().map(run).collect()
            };
            let all: Vec<u32> = (1..=MOST).collect();
            let whole = run(Plans::Invariant, MOST, &[MOST]).swap_remove(0);
            for (tokens, result) in all.iter().zip(run(Plans::Invariant, MOST, &all)) {
                assert!(whole.starts_with(&result), "{operation:?} of {tokens} tokens");
            }
            for most in [1, 7, 64, 1000] {
                let result = run(Plans::Invariant, most, &[most.min(MOST)]).swap_remove(0);
                assert!(whole.starts_with(&result), "{operation:?} with room for {most} tokens");
            }
            let other = run(Plans::Several, MOST, &[1]).swap_remove(0);
            varied |= !whole.starts_with(&other);
        }
    }
    assert!(varied, "other plans have the same bits, so this shows nothing");
}

/// An order of sums that many tokens have asks for no more rows than few have.
#[test]
fn invariant_plans_take_tensors_of_the_capacity() {
    let config = Config { d_in: 36, d_out: 28, rank: 4, router: Router::GivenWeights, ..Config::default() };
    let kernels = Kernels::new(&GPU.device, &GPU.queue);
    let operation =
        Operation::Forward(ForwardOptions { gates: GateRows::Sequence(4), ..ForwardOptions::default() });
    for (tokens, rows) in [(8, 2), (9, 3), (64, 16)] {
        let capacity = Capacity { tokens, plans: Plans::Invariant };
        let prepared = kernels.prepare(&operation, &config, capacity).expect("it fits");
        let recording = prepared.recordings().last().expect("a recording");
        let rows_of = |name| recording.tensor(name).expect("a tensor").rows;
        assert_eq!([rows_of("gates"), rows_of("x"), rows_of("y")], [rows, tokens.into(), tokens.into()]);
    }
}

#[test]
fn two_batches_in_one_submission() {
    let config = Config { d_in: 36, d_out: 28, rank: 4, experts: 3, ..Config::default() };
    let kernels = &Kernels::new(&GPU.device, &GPU.queue);
    let operation = Operation::Forward(ForwardOptions::default());
    let alone = |tokens| {
        let (bound, y) = bind(kernels, operation, &config, 100.into(), "y");
        let batch = Batch::new(kernels, tokens).expect("it fits");
        GPU.submit(|pass| bound.encode(pass, &batch)).expect("the device runs");
        bits(&y)
    };
    let counts = [3, 77, 100];
    let bound = counts.map(|_| bind(kernels, operation, &config, 100.into(), "y"));
    let batches = counts.map(|tokens| Batch::new(kernels, tokens).expect("it fits"));
    GPU.submit(|pass| {
        bound.iter().zip(&batches).try_for_each(|((bound, _), batch)| bound.encode(pass, batch))
    })
    .expect("the device runs");
    for ((_, y), tokens) in bound.iter().zip(counts) {
        assert!(bits(y) == alone(tokens), "{tokens} tokens beside other batches");
    }
    // The rows behind a batch's tokens stay as they are.
    let untouched: Vec<u32> = numbers(100 * 28).into_iter().map(f32::to_bits).collect();
    assert!(bits(&bound[0].1)[3 * 28..] == untouched[3 * 28..]);
}

/// A stack's training step gives the same results in however many buffers its adapters lie.
#[test]
fn a_stack_is_its_adapters() {
    const TOKENS: u32 = 40;
    let shapes = [[64, 48], [48, 64], [64, 64], [64, 48], [48, 64]];
    let config = |[d_in, d_out]: [u32; 2]| Config {
        d_in,
        d_out,
        rank: 4,
        experts: 3,
        scaling: 2.0,
        router: Router::Input,
        ..Default::default()
    };
    let names: Vec<String> = (0..shapes.len()).map(|at| format!("layers.{at}.proj")).collect();
    let modules: Vec<_> =
        names.iter().zip(shapes).map(|(name, shape)| (name.as_str(), config(shape))).collect();
    let operations = Operation::training_step(Element::F32);
    let [x, g] = ["x", "g"].map(|name| upload(name, TOKENS * 64));
    let hyper = AdamWHyper { max_norm: Some(0.5), ..AdamWHyper::default() };
    // Trains with buffers of at most `limit` bytes, which hold several adapters or one each.
    let train = |limit: u64| -> (usize, Vec<f32>, f32) {
        let mut profile = DeviceProfile::of(&GPU.device);
        profile.limits.max_storage_buffer_binding_size = limit;
        let kernels = Kernels::with_profile(&GPU.device, &GPU.queue, profile);
        let capacity = Capacity { tokens: TOKENS, plans: Plans::One };
        let descriptor = StackDescriptor {
            modules: &modules,
            capacity,
            operations: &operations,
            hyper,
            ..Default::default()
        };
        let stack = Stack::new(&kernels, &descriptor).expect("it fits");
        let adapters = (0..).zip(&modules).map(|(seed, (name, config))| {
            let mut adapter = Adapter::initialise(config, seed).expect("a valid configuration");
            adapter.b.iter_mut().flatten().zip(numbers(4 * 64)).for_each(|(b, number)| *b = number / 8.0);
            stack.write(name, &adapter).expect("the stack has it");
        });
        adapters.for_each(drop);
        let [y, dx] = ["y", "dx"].map(|name| zeroed(name, (TOKENS * 64) as usize));
        let tensors = [("x", &x), ("y", &y), ("g", &g), ("dx", &dx)];
        let bind = |module: &str, operation: usize, wanted: [&str; 2]| {
            let tensors = tensors.iter().filter(|(name, _)| wanted.contains(name));
            let tensors: Vec<_> = tensors.map(|&(name, buffer)| (name, Tensor::from(buffer))).collect();
            stack.bind(module, &operations[operation], &tensors).expect("it fits")
        };
        let forwards: Vec<Bound> = names.iter().map(|name| bind(name, 0, ["x", "y"])).collect();
        let backwards: Vec<[Bound; 2]> =
            names.iter().map(|name| [bind(name, 1, ["g", "dx"]), bind(name, 2, ["x", "g"])]).collect();
        let batch = stack.batch().expect("it fits");
        let optimiser = stack.optimiser().expect("it trains");
        for step in 1..=3 {
            optimiser.set_step(&GPU.queue, step, 1e-2).expect("a valid step");
            GPU.submit(|pass| {
                forwards.iter().try_for_each(|bound| bound.encode(pass, &batch))?;
                backwards.iter().rev().flatten().try_for_each(|bound| bound.encode(pass, &batch))?;
                optimiser.encode(pass);
                Ok(())
            })
            .expect("the device runs");
        }
        // The reported memory is exactly what the stack allocated.
        let memory = stack.memory();
        let bytes = |buffers: &[wgpu::Buffer]| buffers.iter().map(wgpu::Buffer::size).sum::<u64>();
        let elements: usize = stack.pack().buffers().iter().sum();
        assert_eq!(memory.parameters, 4 * elements as u64);
        assert_eq!([bytes(stack.parameters()), bytes(stack.gradients())], [memory.parameters; 2]);
        assert_eq!([bytes(stack.moments()), memory.moments], [2 * memory.parameters; 2]);
        let Memory { saved, dstate, scratch, optimiser: norms, .. } = memory;
        assert!(saved >= 5 * dstate && dstate > 0 && norms > 0, "{memory:?}");
        assert_eq!(memory.total(), 4 * memory.parameters + saved + dstate + scratch + norms);

        let buffers: Vec<Vec<f32>> =
            stack.parameters().iter().map(|buffer| GPU.read_blocking(buffer).expect("it runs")).collect();
        let trained =
            stack.pack().places().iter().flat_map(|place| buffers[place.buffer()][place.elements()].to_vec());
        let norm = GPU.read_blocking(stack.status().expect("it clips")).expect("it runs")[0];
        (stack.parameters().len(), trained.collect(), norm)
    };
    let (one, whole, norm) = train(GPU.device.limits().max_storage_buffer_binding_size);
    // The moments of two adapters take 16 KiB.
    let (several, parted, parted_norm) = train(20 << 10);
    assert_eq!(one, 1);
    assert_eq!(several, 3);
    assert!(norm > 0.5, "the norm {norm} should be clipped");
    assert!((norm - parted_norm).abs() <= 4.0 * f32::EPSILON * norm, "{norm} and {parted_norm}");
    assert!(whole.iter().zip(&parted).all(|(a, b)| (a - b).abs() <= 1e-6), "parameters differ");
    assert!(whole.iter().any(|&value| value != 0.0));
}

#[test]
fn a_stack_knows_its_modules() {
    let kernels = &Kernels::new(&GPU.device, &GPU.queue);
    let forward = [Operation::Forward(ForwardOptions { write: WriteMode::Accumulate, ..Default::default() })];
    let descriptor = StackDescriptor {
        modules: &[("q", CONFIG), ("k", CONFIG)],
        capacity: 4.into(),
        operations: &forward,
        ..StackDescriptor::default()
    };
    let stack = Stack::new(kernels, &descriptor).expect("it fits");
    assert!(stack.optimiser().is_none() && stack.gradients().is_empty() && stack.moments().is_empty());
    let (x, y) = (upload("x", 32), zeroed("y", 32));
    let activations = [("x", Tensor::from(&x)), ("y", Tensor::from(&y))];
    stack.bind("k", &forward[0], &activations).expect("it fits");
    let module = "v".to_owned();
    let unknown = stack.bind("v", &forward[0], &activations).map(drop);
    assert_eq!(unknown, Err(Error::UnknownModule { module }));
    let missing = stack.bind("q", &forward[0], &activations[..1]).map(drop);
    assert_eq!(missing, Err(Error::MissingTensor { operation: "forward", tensor: "y" }));
    let twice = StackDescriptor { modules: &[("q", CONFIG), ("q", CONFIG)], ..descriptor };
    let module = "q".to_owned();
    assert_eq!(Stack::new(kernels, &twice).map(drop), Err(Error::DuplicateModule { module }));
}

/// Training that stops after any step and goes on elsewhere, with copies of the parameters and the moments, ends with
/// the same bits.
#[test]
fn an_optimiser_resumes_with_equal_bits() {
    let config =
        Config { d_in: 36, d_out: 28, rank: 4, experts: 3, router: Router::Latent, ..Config::default() };
    let layout = config.layout().expect("a valid configuration");
    let kernels = Kernels::new(&GPU.device, &GPU.queue);
    let groups = Groups { b: GroupHyper { rate: 16.0, weight_decay: Some(0.2) }, ..Groups::default() };
    let hyper = AdamWHyper { max_norm: Some(0.5), groups, ..AdamWHyper::default() };
    let elements = layout.len();
    let start = numbers(elements as u32);
    let run = |parameters: &[f32], moments: &[f32], steps: std::ops::RangeInclusive<u32>| {
        let upload = |name, values: &[f32]| GPU.upload(name, values).expect("it fits");
        let (parameters, moments) = (upload("parameters", parameters), upload("moments", moments));
        for step in steps {
            let scaled: Vec<f32> =
                numbers(elements as u32).iter().map(|number| number * step as f32).collect();
            let gradients = upload("gradients", &scaled);
            let buffers = AdamWBuffers {
                elements,
                parameters: (&parameters).into(),
                gradients: (&gradients).into(),
                moments: (&moments).into(),
            };
            let descriptor = AdamWDescriptor {
                buffers: &[buffers],
                hyper,
                adapters: &[(0, 0, layout)],
                ..Default::default()
            };
            let optimiser = AdamW::prepare(&kernels, &descriptor).expect("it fits");
            optimiser.set_scaled_step(&GPU.queue, step, 1e-2, 0.25).expect("a valid step");
            GPU.submit(|pass| {
                optimiser.encode(pass);
                Ok(())
            })
            .expect("the device runs");
        }
        [parameters, moments].map(|buffer| GPU.read_blocking(&buffer).expect("it runs"))
    };
    let whole = run(&start, &vec![0.0; 2 * elements], 1..=5);
    assert_ne!(whole[0], start);
    for stop in 1..5 {
        let [parameters, moments] = run(&start, &vec![0.0; 2 * elements], 1..=stop);
        let resumed = run(&parameters, &moments, stop + 1..=5);
        let bits =
            |of: &[Vec<f32>; 2]| of.clone().map(|v| v.into_iter().map(f32::to_bits).collect::<Vec<_>>());
        assert_eq!(bits(&resumed), bits(&whole), "stopped after {stop}");
    }
}
