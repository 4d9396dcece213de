//! Compares the count with snippets counted by hand, and with the driver.

use wgpu::util::DeviceExt as _;

use super::most_iterations;
use crate::AdamWHyper;
use crate::device::Gpu;
use crate::kernel::{Binding, BindingKind, Varying};
use crate::{
    Config, DeviceProfile, Element, LinearDirection, LinearOptions, Operation, Planner, Recording, Router,
    Step,
};

/// The count of a shader whose uniform holds `n = 5, m = 7` and whose grid is 3 x 1 x 1.
fn count(functions: &str, body: &str) -> u64 {
    let wgsl = format!(
        "struct Dims {{ n: u32, m: u32 }}
        @group(0) @binding(0) var<uniform> dims: Dims;
        @group(0) @binding(1) var<storage, read_write> out: array<u32>;
        {functions}
        @compute @workgroup_size(64)
        fn main(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) local: u32) {{
            {body}
        }}"
    );
    most_iterations(&wgsl, [bytemuck::bytes_of(&[5u32, 7]), &[]], [3, 1, 1])
}

#[test]
fn loops_count_as_llvmpipe_counts_them() {
    let write = "out[local] += 1u;";
    let cases = [
        // The body runs once more, with all lanes idle.
        ("for (var i = 0u; i < dims.n; i++) { WRITE }", 5 + 1),
        ("for (var i = 1u; i < dims.n; i += 3u) { WRITE }", 2 + 1),
        ("for (var i = 9u; i < dims.n; i++) { WRITE }", 1),
        // So does the loop inside it.
        (
            "for (var i = 0u; i < dims.n; i++) { for (var j = 0u; j < dims.m; j++) { WRITE } }",
            5 * (1 + 8) + 2,
        ),
        // The lanes start at different values, and the first lane takes the most iterations.
        ("for (var i = local; i < 100u; i += 64u) { WRITE }", 2 + 1),
        // Both ends move with the outer loop.
        (
            "for (var i = 0u; i < 100u; i += 10u) {
                for (var j = i + local; j < min(i + 10u, 95u); j++) { WRITE }
            }",
            10 * (1 + 11) + 2,
        ),
        // The first value and the bound differ between workgroups.
        ("for (var i = group.x * dims.n; i < (group.x + 1u) * dims.n; i++) { WRITE }", 5 + 1),
        // A loop of few constant iterations with a small body is unrolled. One with many iterations or a
        // large body is not.
        ("for (var i = 0u; i < 8u; i++) { WRITE }", 0),
        ("for (var i = 0u; i < 33u; i++) { WRITE }", 33 + 1),
        (
            "for (var i = 0u; i < 32u; i++) {
                WRITE WRITE WRITE WRITE WRITE
            }",
            32 + 1,
        ),
        // Lanes idle through a branch that they do not take: all lanes take the same branch, or they differ.
        (
            "if (group.x > 1u) { for (var i = 0u; i < dims.n; i++) { WRITE } }
            else { for (var i = 0u; i < dims.m; i++) { WRITE } }",
            8 + 1,
        ),
        (
            "if (local > 1u) { for (var i = 0u; i < dims.n; i++) { WRITE } }
            else { for (var i = 0u; i < dims.m; i++) { WRITE } }",
            8 + 6,
        ),
        ("let n = bound(group.x); for (var i = 0u; i < n; i++) { WRITE }", 7 + 1),
        // A store may be skipped: in a branch, or in a loop that is not entered.
        (
            "var n = 1u;
            if (local > 1u) { n = dims.m; }
            for (var i = 0u; i < n; i++) { WRITE }",
            u64::MAX,
        ),
        (
            "var n = dims.m;
            for (var i = local; i < dims.n; i++) { n = 1u; }
            for (var i = 0u; i < n; i++) { WRITE }",
            u64::MAX,
        ),
        // A loop of another form.
        (
            "var i = 0u; loop { if (i < dims.n) { WRITE } if (local > 1u) { break; } continuing { i += 1u; } }",
            u64::MAX,
        ),
        ("for (var i = 0u; i < dims.n; i++) { i = 0u; WRITE }", u64::MAX),
        // A number in memory may have any value.
        ("for (var i = 0u; i < out[0]; i++) { WRITE }", u64::MAX),
        (
            "var n = 1u;
            for (var i = 0u; i < 99u; i++) { n += 1u; }
            for (var i = 0u; i < n; i++) { WRITE }",
            u64::MAX,
        ),
    ];
    let functions = "fn bound(n: u32) -> u32 { return min(3u * n + 1u, dims.m); }";
    for (body, expected) in cases {
        assert_eq!(count(functions, &body.replace("WRITE", write)), expected, "{body}");
    }
}

/// A dispatch that first burns the number of loop iterations in its uniform.
struct Burning<'a> {
    gpu: &'a Gpu,
    step: &'a Step,
    tokens: u32,
    pipeline: wgpu::ComputePipeline,
    tensors: Vec<(wgpu::Buffer, BindingKind)>,
    numbers: Vec<f32>,
}

impl<'a> Burning<'a> {
    fn new(gpu: &'a Gpu, step: &'a Step, tokens: u32, elements: usize) -> Self {
        let source = step.shader.source();
        let begin = source.wgsl.rfind("fn main(").expect("an entry point");
        let begin = begin + source.wgsl[begin..].find(") {").expect("its body") + 3;
        let (before, after) = source.wgsl.split_at(begin);
        let wgsl = format!(
            "@group(2) @binding(0) var<uniform> burn: vec4<u32>;
            {before}
            // Something that no compiler can tell without counting, and that never is.
            var burnt = 1u;
            for (var i = 0u; i < burn.x; i++) {{ burnt = (burnt ^ i) * 16777619u; }}
            if (burnt == 0u) {{ return; }}
            {after}"
        );
        let layout = |bindings: &[BindingKind]| {
            let entries: Vec<_> =
                (0..).zip(bindings).map(|(at, &kind)| crate::gpu::layout_entry(at, kind)).collect();
            gpu.device
                .create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: None, entries: &entries })
        };
        let kinds: Vec<_> = source.bindings.iter().map(|binding| binding.kind).collect();
        let varying: &[_] = if source.varying == Varying::Nothing { &[] } else { &[BindingKind::Uniform] };
        let layouts = [layout(&kinds), layout(varying), layout(&[BindingKind::Uniform])];
        let layout = gpu.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            bind_group_layouts: &layouts.each_ref().map(Some),
            ..Default::default()
        });
        let module = crate::gpu::trusted_module(&gpu.device, source.label, wgsl);
        let pipeline = gpu.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: None,
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions {
                zero_initialize_workgroup_memory: false,
                ..Default::default()
            },
            cache: None,
        });
        let tensor =
            |Binding { kind, .. }: &Binding| (gpu.zeroed("tensor", elements).expect("memory"), *kind);
        let mut random = crate::layer::SplitMix64(1);
        Self {
            gpu,
            step,
            tokens,
            pipeline,
            tensors: source.bindings[1..].iter().map(tensor).collect(),
            numbers: (0..elements).map(|_| random.uniform()).collect(),
        }
    }

    /// The bits that the dispatch writes.
    fn run(&self, burn: u64) -> Vec<Vec<u32>> {
        let Self { gpu: Gpu { device, queue }, step, tokens, pipeline, tensors, numbers } = self;
        let uniform = |contents: &[u8]| {
            let usage = wgpu::BufferUsages::UNIFORM;
            device.create_buffer_init(&wgpu::util::BufferInitDescriptor { label: None, contents, usage })
        };
        let mut bytes = step.uniform.clone();
        bytes.resize(bytes.len().next_multiple_of(16), 0);
        let varying = uniform(bytemuck::cast_slice(&[*tokens, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        let uniforms = [uniform(&bytes), uniform(bytemuck::bytes_of(&[burn as u32, 0, 0, 0]))];
        for (tensor, _) in tensors {
            queue.write_buffer(tensor, 0, bytemuck::cast_slice(numbers));
        }
        let group = |at: u32, buffers: &[&wgpu::Buffer]| {
            let entries: Vec<_> = (0..)
                .zip(buffers)
                .map(|(binding, buffer)| wgpu::BindGroupEntry {
                    binding,
                    resource: buffer.as_entire_binding(),
                })
                .collect();
            let layout = &pipeline.get_bind_group_layout(at);
            device.create_bind_group(&wgpu::BindGroupDescriptor { label: None, layout, entries: &entries })
        };
        let bound: Vec<_> =
            [&uniforms[0]].into_iter().chain(tensors.iter().map(|(tensor, _)| tensor)).collect();
        let varies = step.shader.source().varying != Varying::Nothing;
        let varying: &[_] = if varies { &[&varying] } else { &[] };
        let groups = [group(0, &bound), group(1, varying), group(2, &[&uniforms[1]])];
        let [x, y, z] = step.grid.at(*tokens);
        let record = |pass: &mut wgpu::ComputePass<'_>| {
            pass.set_pipeline(pipeline);
            for (at, group) in (0..).zip(&groups) {
                pass.set_bind_group(at, group, &[]);
            }
            pass.dispatch_workgroups(x, y, z);
            Ok(())
        };
        self.gpu.submit(record).expect("a working device");
        let written = tensors.iter().filter(|(_, kind)| *kind == BindingKind::Write);
        let bits = |(tensor, _): &(wgpu::Buffer, _)| {
            let values = self.gpu.read_blocking(tensor).expect("a working device");
            values.into_iter().map(f32::to_bits).collect()
        };
        written.map(bits).collect()
    }
}

/// Burns the iterations that a plan leaves of the driver's 65,535: its results must not change. On drivers
/// that do not end loops this tests nothing. On llvmpipe it also checks that burning more than all of them
/// changes results.
#[test]
fn no_plan_counts_fewer_iterations_than_the_driver() {
    const ALL: u64 = 65_535;
    let gpu = pollster::block_on(Gpu::from_env()).expect("a GPU or a software driver");
    let device = DeviceProfile { max_loop_iterations: u64::MAX, ..DeviceProfile::of(&gpu.device) };
    let alone = DeviceProfile { subgroup_lanes: 1, ..device.clone() };
    let mut steps: Vec<(Step, u32)> = Vec::new();
    let mut add = |recording: Recording| {
        steps.extend(recording.steps.into_iter().map(|step| (step, recording.capacity)));
    };
    for ([tokens, d_in, d_out, rank, experts], router, half) in [
        ([20, 256, 192, 8, 4], Router::Latent, Element::F16),
        ([228, 384, 152, 65, 12], Router::Input, Element::Bf16),
    ] {
        let config = Config { d_in, d_out, rank, experts, scaling: 1.0, router, ..Default::default() };
        let fits = "these shapes fit";
        for (operation, thirds) in Operation::training_step(Element::F32)
            .map(|operation| (operation, &[0, 3][..]))
            .into_iter()
            .chain(Operation::training_step(half).map(|operation| (operation, &[1][..])))
        {
            for device in [&device, &alone] {
                let planner = Planner::new(device.clone());
                let choices = planner.choices(&operation, &config, tokens).expect(fits);
                for &third in thirds {
                    let choice = choices[(choices.len() - 1) * third / 3];
                    add(planner.plan_as(choice, &operation, &config, tokens).expect(fits));
                }
            }
        }
        for direction in [LinearDirection::Forward, LinearDirection::Backward] {
            let operation = Operation::Linear(LinearOptions { direction, ..LinearOptions::default() });
            let planner = Planner::new(device.clone());
            for choice in planner.choices(&operation, &config, tokens).expect(fits).into_iter().step_by(5) {
                add(planner.plan_as(choice, &operation, &config, tokens).expect(fits));
            }
        }
    }
    let clipping = AdamWHyper { max_norm: Some(1.0), ..AdamWHyper::default() };
    for recording in Planner::new(device).adamw(&[400_000], &clipping).expect("it fits") {
        add(recording);
    }
    steps.sort_by_key(|step| format!("{step:?}"));
    steps.dedup();
    assert!(steps.len() > 20, "only {} dispatches", steps.len());

    let mut ended = 0;
    for (step, tokens) in &steps {
        let uniforms = [&step.uniform[..], &tokens.to_le_bytes()];
        let counted = most_iterations(&step.shader.source().wgsl, uniforms, step.grid.at(*tokens));
        let burning = Burning::new(&gpu, step, *tokens, 600_000);
        let right = burning.run(0);
        assert!(burning.run(ALL - 1 - counted) == right, "{step:?}: more than {counted} iterations");
        ended += usize::from(burning.run(ALL + 1) != right);
    }
    if DeviceProfile::of(&gpu.device).max_loop_iterations < u64::MAX {
        assert!(2 * ended > steps.len(), "only {ended} of {} dispatches were ended", steps.len());
    }
}
