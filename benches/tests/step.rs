//! A training step of LLaMA-2-7B's adapters: its number of dispatches, and that recording it creates nothing,
//! neither on the heap nor on the device. Without an adapter these tests fail and say how to get one.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::collections::HashMap;

use hydralora::device::{Gpu, instance_from_env};
use hydralora::kernel::Varying;
use hydralora::{
    AdamW, AdamWBuffers, AdamWDescriptor, AdamWHyper, AdamWStatus, Batch, Bound, Config, DeviceProfile,
    ForwardOptions, Kernels, Operation, Planner, Recording, Stack, StackDescriptor, wgpu,
};
use hydralora_benches::step::{LLAMA_2_7B, Model, Step};

/// A model whose whole steps a software driver runs in no time.
const SMALL: Model = Model { layers: 2, projections: [[64, 64], [64, 192], [192, 64]], tokens: 16 };

/// Counts the allocations of each thread separately, so that drivers' threads and other tests do not count.
struct CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

impl CountingAllocator {
    fn count() {
        // A thread that ends may allocate after its counter is gone.
        let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
    }
}

// SAFETY: the system allocator does everything; the counter neither allocates nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::count();
        // SAFETY: the caller's promises are passed on, here and below.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::count();
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::count();
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn allocations(run: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    run();
    ALLOCATIONS.get() - before
}

fn gpu() -> Gpu {
    let gpu = pollster::block_on(Gpu::from_env());
    gpu.unwrap_or_else(|error| panic!("these tests need a GPU or a software driver.\n{error}"))
}

/// The same device again, with its instance, which reports what exists.
fn instance_and_gpu() -> (wgpu::Instance, Gpu) {
    let info = gpu().device.adapter_info();
    let instance = instance_from_env();
    let adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()));
    let adapter = adapters.iter().find(|adapter| adapter.get_info() == info).expect("the adapter is there");
    let gpu = pollster::block_on(Gpu::from_adapter(adapter)).expect("it gives a device again");
    (instance, gpu)
}

/// The same calls without the library. Recording does not depend on what pipelines and bind groups contain,
/// only on whether one is set that is set already.
struct ByHand(Vec<Dispatch>);

struct Dispatch {
    pipeline: wgpu::ComputePipeline,
    bind_group: wgpu::BindGroup,
    /// Dispatches that vary with the same values share one.
    varying: Option<wgpu::BindGroup>,
    grid: [u32; 3],
}

impl ByHand {
    fn new(device: &wgpu::Device, recordings: &[Recording], tokens: u32) -> Self {
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor {
            label: None,
            source: wgpu::ShaderSource::Wgsl("@compute @workgroup_size(1) fn main() {}".into()),
        });
        let pipeline = || {
            device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: None,
                module: &module,
                entry_point: None,
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            })
        };
        let layout =
            device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &[] });
        let bind_group = || {
            device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &layout,
                entries: &[],
            })
        };
        let (mut pipelines, mut varied) = (HashMap::new(), HashMap::new());
        let steps = recordings.iter().flat_map(|recording| &recording.steps);
        let dispatch = steps.map(|step| Dispatch {
            pipeline: pipelines.entry(&step.shader).or_insert_with(pipeline).clone(),
            bind_group: bind_group(),
            varying: match step.shader.source().varying {
                Varying::Nothing => None,
                varying => Some(varied.entry(varying).or_insert_with(bind_group).clone()),
            },
            grid: step.grid.at(tokens),
        });
        Self(dispatch.collect())
    }

    fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        for Dispatch { pipeline, bind_group, varying, grid: [x, y, z] } in &self.0 {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, bind_group, &[]);
            if let Some(varying) = varying {
                pass.set_bind_group(1, varying, &[]);
            }
            pass.dispatch_workgroups(*x, *y, *z);
        }
    }
}

#[derive(Debug, PartialEq)]
struct Recorded {
    allocations: usize,
    /// The number of commands that fit before wgpu's list grows again. If two lists have grown equally often
    /// and have the same room, they are equally long: as many dispatches were recorded.
    room: usize,
}

impl Recorded {
    fn of(device: &wgpu::Device, encode: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Self {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        let allocations = allocations(|| encode(&mut pass));
        let mut room = 0;
        while self::allocations(|| pass.dispatch_workgroups(1, 1, 1)) == 0 {
            room += 1;
        }
        Self { allocations, room }
    }
}

#[test]
fn a_step_is_four_dispatches_an_adapter() {
    let dispatches = |tokens, device: &DeviceProfile| -> usize {
        let planner = Planner::new(device.clone());
        let recordings = Model { tokens, ..LLAMA_2_7B }.recordings(&planner).expect("it fits");
        recordings.iter().map(|recording| recording.steps.len()).sum()
    };
    let device = |busy_workgroups| DeviceProfile::new(wgpu::Limits::default(), busy_workgroups);
    // The shrink of backward's 32 columns is separate, since a single dispatch would read g twice. The moments
    // of 27 million parameters take two bindings of 128 MiB, so AdamW has two dispatches.
    assert_eq!(dispatches(2048, &device(1)), 4 * 96 + 2);
    let mut roomy = device(1);
    roomy.limits.max_storage_buffer_binding_size = 1 << 28;
    assert_eq!(dispatches(2048, &roomy), 4 * 96 + 1);
    // In software each kind of block has a separate dispatch.
    assert_eq!(dispatches(2048, &DeviceProfile { software: true, ..device(1) }), 4 * 96 + 2);
    // On a wide device tokens may be split, which adds a reduction. With few tokens, shrinks may be separate.
    for (tokens, most) in [(2048, 6), (16, 5)] {
        let dispatches = dispatches(tokens, &device(256));
        assert!((3 * 96 + 2..=most * 96 + 2).contains(&dispatches), "{dispatches} for {tokens} tokens");
    }
}

#[test]
fn recording_allocates_nothing() {
    let gpu = &gpu();
    let step = Step::bind(gpu, &LLAMA_2_7B).expect("it fits");
    let planner = Planner::new(DeviceProfile::of(&gpu.device));
    let recordings = LLAMA_2_7B.recordings(&planner).expect("it fits");
    let by_hand = ByHand::new(&gpu.device, &recordings, LLAMA_2_7B.tokens);
    for round in 0..4 {
        let ours = Recorded::of(&gpu.device, |pass| step.encode(pass).expect("as many tokens as planned"));
        let theirs = Recorded::of(&gpu.device, |pass| by_hand.encode(pass));
        assert!(ours.allocations > 0, "wgpu's list grows, if nothing else does");
        assert_eq!(ours, theirs, "the library's calls and the same by hand, round {round}");
    }
    // The uniform that `AdamW::set_step` gives to `Queue::write_buffer`.
    let hyper = AdamWHyper::default();
    assert_eq!(
        allocations(|| _ = std::hint::black_box(hyper.uniform(1, 1e-3, 1.0)).expect("a valid step")),
        0
    );
}

#[test]
fn recording_makes_nothing_on_the_device() {
    let (instance, gpu) = instance_and_gpu();
    let device = &gpu.device;
    let step = Step::bind(&gpu, &LLAMA_2_7B).expect("it fits");
    let existing = || instance.generate_report().expect("wgpu's own implementation of WebGPU").hub;
    let memory = || device.generate_allocator_report().map(|report| report.total_allocated_bytes);
    let record = || {
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let encoded = step.encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
        encoded.expect("as many tokens as planned");
        encoder.finish()
    };
    drop(record());
    let (before, memory_before) = (existing(), memory());
    let recorded: Vec<_> = (0..4).map(|_| record()).collect();
    let mut after = existing();
    assert_eq!(memory(), memory_before, "bytes of device memory");
    let commands = after.command_buffers.num_allocated - before.command_buffers.num_allocated;
    assert_eq!(commands, recorded.len());
    after.command_buffers = before.command_buffers;
    assert_eq!(after, before, "more than command buffers");
}

/// The seven projections of LLaMA-2-7B's 32 layers, with prompts of changing length. Planning, compiling and
/// binding once serves every length.
#[test]
fn another_number_of_tokens_makes_nothing() {
    const MOST: u32 = 423;
    let (instance, gpu) = instance_and_gpu();
    let device = &gpu.device;
    let kernels = &Kernels::new(device, &gpu.queue);
    let forward = [Operation::Forward(ForwardOptions::default())];
    let layer = [[4096, 4096]; 4].into_iter().chain([[4096, 11008], [4096, 11008], [11008, 4096]]);
    let modules: Vec<(String, Config)> = (0..32)
        .flat_map(|_| layer.clone())
        .enumerate()
        .map(|(at, [d_in, d_out])| {
            (format!("projection {at}"), Config { d_in, d_out, rank: 2, experts: 2, ..Config::default() })
        })
        .collect();
    let modules: Vec<_> = modules.iter().map(|(name, config)| (name.as_str(), *config)).collect();
    let descriptor = StackDescriptor {
        modules: &modules,
        capacity: MOST.into(),
        operations: &forward,
        ..StackDescriptor::default()
    };
    let stack = Stack::new(kernels, &descriptor).expect("it fits");
    let [x, y] = ["x", "y"].map(|name| gpu.zeroed(name, MOST as usize * 11008).expect("it fits"));
    let activations = [("x", (&x).into()), ("y", (&y).into())];
    let bind = |&(name, _): &(&str, Config)| stack.bind(name, &forward[0], &activations).expect("it fits");
    let bound: Vec<Bound> = modules.iter().map(bind).collect();
    assert_eq!(bound.len(), 224);
    let mut batch = stack.batch().expect("it fits");
    let encode = |pass: &mut wgpu::ComputePass<'_>, batch: &Batch| {
        bound.iter().try_for_each(|bound| bound.encode(pass, batch))
    };
    let existing = || instance.generate_report().expect("wgpu's own implementation of WebGPU").hub;
    let memory = || device.generate_allocator_report().map(|report| report.total_allocated_bytes);
    // wgpu keeps its memory for buffer writes until a submission.
    let flush = || {
        gpu.queue.submit([]);
        gpu.wait().expect("the device runs");
    };
    flush();
    let (compiled, before, memory_before) = (kernels.compiled(), existing(), memory());
    let recordings = |tokens: u32| -> Vec<Recording> {
        let prepared = |config| kernels.prepare(&forward[0], config, MOST).expect("it was prepared");
        let fits = |recording: &&Recording| tokens <= recording.capacity;
        let chosen = |config| prepared(config).recordings().find(fits).expect("it has room").clone();
        modules.iter().map(|(_, config)| chosen(config)).collect()
    };
    let mut commands = Vec::new();
    for tokens in [MOST, 217, 1, 32, MOST] {
        let begin = std::time::Instant::now();
        batch.set(&gpu.queue, tokens).expect("tokens");
        let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        encode(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()), &batch)
            .expect("it has room");
        println!("224 forwards of {tokens} tokens recorded in {:?}", begin.elapsed());
        commands.push(encoder.finish());
        let ours = Recorded::of(device, |pass| encode(pass, &batch).expect("it has room"));
        let by_hand = ByHand::new(device, &recordings(tokens), tokens);
        assert_eq!(ours, Recorded::of(device, |pass| by_hand.encode(pass)), "{tokens} tokens");
    }
    assert_eq!(kernels.compiled(), compiled);
    flush();
    assert_eq!(memory(), memory_before, "bytes of device memory");
    let after = existing();
    assert_eq!(after.buffers.num_kept_from_user, before.buffers.num_kept_from_user, "buffers");
    assert_eq!(after.bind_groups.num_kept_from_user, before.bind_groups.num_kept_from_user, "bind groups");
}

#[test]
fn a_recorded_step_trains() {
    const RATE: f32 = 1e-3;
    let gpu = &gpu();
    let step = Step::bind(gpu, &SMALL).expect("it fits");
    for parameters in step.stack.parameters() {
        let values: Vec<f32> = (0..parameters.size() / 4).map(|at| (at as f32).sin() / 8.0).collect();
        gpu.queue.write_buffer(parameters, 0, bytemuck::cast_slice(&values));
    }
    let read = || -> Vec<f32> {
        let buffers = step.stack.parameters().iter();
        buffers.flat_map(|buffer| gpu.read_blocking(buffer).expect("the device runs")).collect()
    };
    let mut before = read();
    for number in 1..=2 {
        step.set(&gpu.queue, number, RATE).expect("a valid step");
        gpu.submit(|pass| step.encode(pass)).expect("the device runs");
        let after = read();
        // With a steady gradient, AdamW moves each parameter by the learning rate in each step.
        let moved = before.iter().zip(&after).filter(|(before, after)| (*before - *after).abs() > RATE / 2.0);
        let (moved, all) = (moved.count(), before.len());
        assert!(10 * moved > 9 * all, "step {number} moved {moved} of {all} parameters");
        before = after;
    }
}

#[test]
fn a_step_whose_norm_is_not_finite_is_skipped_and_counted() {
    const ELEMENTS: usize = 4 * 64 * 3;
    let gpu = &gpu();
    let values: Vec<f32> = (0..ELEMENTS).map(|at| (at as f32).sin()).collect();
    let [parameters, gradients] =
        ["parameters", "gradients"].map(|name| gpu.upload(name, &values).expect("there is room"));
    let [moments, status] =
        [2 * ELEMENTS, 2].map(|len| gpu.zeroed("moments or status", len).expect("there is room"));
    let adamw = AdamW::prepare(
        &Kernels::new(&gpu.device, &gpu.queue),
        &AdamWDescriptor {
            buffers: &[AdamWBuffers {
                elements: ELEMENTS,
                parameters: (&parameters).into(),
                gradients: (&gradients).into(),
                moments: (&moments).into(),
            }],
            status: Some((&status).into()),
            hyper: AdamWHyper { max_norm: Some(f32::MAX), ..AdamWHyper::default() },
            ..Default::default()
        },
    )
    .expect("it fits");
    let read = |buffer| gpu.read_blocking(buffer).expect("the device runs");
    let state = || [read(&parameters), read(&moments)].concat().into_iter().map(f32::to_bits);
    let mut skipped = 0;
    for (number, poison) in (1..).zip([None, Some(f32::NAN), None, Some(f32::INFINITY), Some(3e38), None]) {
        let mut given = values.clone();
        // Two bad gradients: f32 holds the norm of one alone.
        for at in [1, ELEMENTS - 1] {
            given[at] = poison.unwrap_or(given[at]);
        }
        gpu.queue.write_buffer(&gradients, 0, bytemuck::cast_slice(&given));
        adamw.set_step(&gpu.queue, number, 1e-2).expect("a valid step");
        let before: Vec<u32> = state().collect();
        gpu.submit(|pass| {
            adamw.encode(pass);
            Ok(())
        })
        .expect("the device runs");
        let changed = before.into_iter().zip(state()).filter(|(before, after)| before != after).count();
        let AdamWStatus { norm, skipped: counted } = bytemuck::cast_slice(&read(&status))[0];
        if poison.is_some() {
            skipped += 1;
            assert_eq!(changed, 0, "step {number} should change nothing");
            assert!(!norm.is_finite(), "the norm of step {number} is {norm}");
        } else {
            assert!(changed > 2 * ELEMENTS, "step {number} changed {changed} of {}", 3 * ELEMENTS);
            assert!((norm - (ELEMENTS as f32 / 2.0).sqrt()).abs() < 0.1, "{norm}");
        }
        assert_eq!(counted, skipped, "after step {number}");
    }
}
