//! Compares the uniforms that shaders declare with the host's structs, field by field.

use std::mem::offset_of;

use super::adamw::{Dims as AdamWDims, Hyper, NormDims, ReduceDims as NormReduceDims, SQUARES_WORDS};
use super::backward_params::{Dims as OuterDims, ReduceDims};
use super::fused::{FusedDims, ShrinkDims};
use super::gate_gradients::Dims as GatesDims;
use super::gate_losses::{LossesDims, SumsDims};
use super::linear::Dims as LinearDims;
use super::*;
use crate::kernel::Shader;
use crate::layer::{
    AdamWHyper, BackwardInputOptions, BackwardParamsOptions, ForwardOptions, GateGradientsOptions,
    GateLossesOptions, GroupHyper, Groups, LinearOptions,
};
use crate::plan::{Grid, LinearChoice};
use crate::recording::Step;

const CONFIG: Config = Config {
    d_in: 512,
    d_out: 512,
    rank: 2,
    experts: 2,
    scaling: 1.0,
    router: crate::layer::Router::Input,
    ..Config::DEFAULT
};

/// The names and offsets of a struct's members, and its size.
type Members = (Vec<(String, usize)>, usize);

/// The struct of the uniform at binding 0 of a group.
fn uniform(shader: &Shader, group: u32) -> Members {
    let source = shader.source();
    let module = naga::front::wgsl::parse_str(&source.wgsl).expect("valid WGSL");
    let binding = Some(naga::ResourceBinding { group, binding: 0 });
    let found = module.global_variables.iter().find(|(_, variable)| variable.binding == binding);
    let (_, variable) = found.unwrap_or_else(|| panic!("{} has no uniform in group {group}", source.label));
    let naga::TypeInner::Struct { members, span } = &module.types[variable.ty].inner else {
        panic!("the uniform of {} is no struct", source.label)
    };
    let member =
        |member: &naga::StructMember| (member.name.clone().unwrap_or_default(), member.offset as usize);
    (members.iter().map(member).collect(), *span as usize)
}

/// Fails unless the uniform at binding 0 of a group has these fields.
macro_rules! assert_uniform {
    ($shader:expr, $group:expr, $struct:ty, $($field:ident),+) => {{
        let fields = vec![$((stringify!($field).to_owned(), offset_of!($struct, $field))),+];
        assert_eq!(uniform($shader, $group), (fields, size_of::<$struct>()), "{:?}", $shader);
    }};
}

#[test]
fn uniforms_match() {
    let planner = Planner::new(DeviceProfile::new(wgpu::Limits::default(), 64));
    let mut seen = std::collections::HashSet::new();
    for operation in [
        Operation::Forward(ForwardOptions::default()),
        Operation::BackwardInput(BackwardInputOptions::default()),
        Operation::BackwardParams(BackwardParamsOptions::default()),
        Operation::Linear(LinearOptions::default()),
        Operation::GateLosses(GateLossesOptions::default()),
    ] {
        for tokens in [4, 2048] {
            for recording in planner.candidates(&operation, &CONFIG, tokens).expect("it fits") {
                for step in recording.steps {
                    assert_eq!(step.uniform.len(), uniform(&step.shader, 0).1);
                    if seen.insert(step.shader.clone()) {
                        check(&step.shader);
                    }
                }
            }
        }
    }
    let apart = Choice::Linear(LinearChoice {
        threads: 64,
        thread_tokens: 1,
        thread_quads: 1,
        splits: 2,
        way: LinearWay::Direct { lanes: 8, step: 1, broadcast: false },
    });
    let linear = planner.plan_as(apart, &Operation::Linear(LinearOptions::default()), &CONFIG, 1);
    for step in linear.expect("it fits").steps {
        seen.insert(step.shader.clone());
        check(&step.shader);
    }
    let given = Config { router: crate::layer::Router::GivenWeights, ..CONFIG };
    let sums = Operation::GateGradients(GateGradientsOptions::default());
    for step in planner.plan(&sums, &given, 4).expect("it fits").steps {
        seen.insert(step.shader.clone());
        check(&step.shader);
    }
    let groups = Groups { b: GroupHyper { rate: 16.0, weight_decay: None }, ..Groups::default() };
    let hyper = AdamWHyper { max_norm: Some(1.0), groups, ..AdamWHyper::default() };
    for recording in planner.adamw(&[64, 128], &hyper).expect("it fits") {
        seen.insert(recording.steps[0].shader.clone());
        check(&recording.steps[0].shader);
    }
    let kernels = |shader: &Shader| shader.source().label;
    assert_eq!(seen.iter().map(kernels).collect::<std::collections::HashSet<_>>().len(), 14, "kernels");
}

fn check(shader: &Shader) {
    match shader {
        Shader::Forward(_) | Shader::BackwardInput(_) => {
            assert_uniform!(
                shader,
                0,
                FusedDims,
                d_in,
                d_out,
                slice_vecs,
                source_stride,
                target_stride,
                expand_block,
                gate_block,
                scaling,
                experts,
                shrink_rows,
                first_tile,
                logit_scale,
                row_tokens,
                dropout_threshold,
                keep_scale,
                dropout_stream
            );
        }
        Shader::Shrink(_) => {
            assert_uniform!(
                shader,
                0,
                ShrinkDims,
                source_width,
                source_stride,
                matrix,
                split_vecs,
                first_tile,
                dropout_threshold,
                keep_scale,
                dropout_stream
            );
        }
        Shader::BackwardParams(_) => {
            assert_uniform!(
                shader,
                0,
                OuterDims,
                d_in,
                d_out,
                x_stride,
                g_stride,
                splits,
                expand_start,
                gate_start,
                first,
                end,
                expand_block,
                gate_block,
                packed,
                scaling,
                dropout_threshold,
                keep_scale,
                dropout_stream
            );
        }
        Shader::BackwardParamsReduce(_) => assert_uniform!(shader, 0, ReduceDims, vecs, splits),
        Shader::Linear(_) | Shader::LinearReduce(_) => {
            assert_uniform!(
                shader,
                0,
                LinearDims,
                source_width,
                target_width,
                source_stride,
                target_stride,
                split_vecs,
                splits,
                first_tile
            );
        }
        Shader::GateGradients(_) => assert_uniform!(shader, 0, GatesDims, row_tokens),
        Shader::GateSums(_) => assert_uniform!(shader, 0, SumsDims, experts),
        Shader::GateLosses => {
            assert_uniform!(shader, 0, LossesDims, experts, balance_scale, spread_scale, z_scale, gradients);
        }
        shader => check_optimiser(shader),
    }
    // The uniform of a batch has the 16 bytes of its buffer.
    if shader.source().varying == crate::kernel::Varying::Batch {
        let (members, size) = uniform(shader, 1);
        let names = ["tokens", "seed_low", "seed_high", "step"].map(str::to_owned);
        assert_eq!((members, size), (names.into_iter().zip([0, 4, 8, 12]).collect(), 16), "{shader:?}");
    }
}

fn check_optimiser(shader: &Shader) {
    match shader {
        Shader::AdamW(_) => {
            assert_uniform!(shader, 0, AdamWDims, vecs);
            assert_uniform!(
                shader,
                1,
                Hyper,
                decay,
                step_size,
                beta1,
                beta2,
                second_scale,
                epsilon,
                max_norm,
                gradient_scale
            );
        }
        Shader::GradientNorm => assert_uniform!(shader, 0, NormDims, vecs, first_square),
        Shader::GradientNormReduce => {
            assert_uniform!(shader, 0, NormReduceDims, squares);
            let module = naga::front::wgsl::parse_str(&shader.source().wgsl).expect("valid WGSL");
            let squares = module.types.iter().find(|(_, ty)| ty.name.as_deref() == Some("Squares"));
            let naga::TypeInner::Struct { span, .. } = squares.expect("it is declared").1.inner else {
                panic!("Squares is no struct")
            };
            assert_eq!(u64::from(span), 4 * SQUARES_WORDS);
        }
        _ => unreachable!("the other shaders are no optimiser's"),
    }
}

/// The dispatches of a kernel, with what its uniform says of the first tile or block.
fn firsts(recording: &Recording, kernel: &str, at: usize) -> Vec<(u32, Grid)> {
    let steps = recording.steps.iter().filter(|step| step.shader.source().label == kernel);
    let first = |step: &Step| u32::from_le_bytes(step.uniform[at..at + 4].try_into().expect("four bytes"));
    steps.map(|step| (first(step), step.grid)).collect()
}

/// More work than a dispatch may do is divided among several, whose tiles follow each other without a gap, at
/// any number of tokens up to the capacity.
#[test]
fn dispatches_are_bounded() {
    let device = DeviceProfile::new(wgpu::Limits::default(), 64);
    let free = Planner::new(DeviceProfile { max_dispatch_flops: u64::MAX, ..device.clone() });
    let [of_fused, of_linear] = [offset_of!(FusedDims, first_tile), offset_of!(LinearDims, first_tile)];
    for (operation, at) in [
        (Operation::Forward(ForwardOptions::default()), of_fused),
        (Operation::BackwardInput(BackwardInputOptions::default()), of_fused),
        (Operation::Linear(LinearOptions::default()), of_linear),
    ] {
        let whole = free.plan(&operation, &CONFIG, 1000).expect("it fits");
        let kernel = whole.steps.last().expect("it has steps").shader.source().label;
        let flops = whole.work.flops;
        for parts in [1, 2, 3, 7, 50, u64::MAX] {
            let max_dispatch_flops = flops / parts;
            let planner = Planner::new(DeviceProfile { max_dispatch_flops, ..device.clone() });
            let choice = whole.choice.expect("it has choices");
            let recording = planner.plan_as(choice, &operation, &CONFIG, 1000).expect("it fits");
            let dispatches = firsts(&recording, kernel, at);
            let Grid::Tiles { tile, .. } = dispatches[0].1 else { panic!("{kernel} has no tiles") };
            assert!(
                dispatches.len() as u64 >= parts.min(1000_u32.div_ceil(tile).into()),
                "{kernel}, {parts}"
            );
            for tokens in [1, 2, 31, 32, 33, 500, 999, 1000] {
                let mut next = 0;
                for &(first, grid) in &dispatches {
                    let [_, y, z] = grid.at(tokens);
                    assert!(y * z == 0 || first == next, "{kernel}, {parts}, {tokens}");
                    next += y * z;
                }
                assert_eq!(next, tokens.div_ceil(tile), "{kernel}, {parts}, {tokens}");
            }
        }
    }
    let operation = Operation::BackwardParams(BackwardParamsOptions::default());
    let whole = free.plan(&operation, &CONFIG, 1000).expect("it fits");
    let blocks = firsts(&whole, "backward_params", offset_of!(OuterDims, end))[0].0;
    for parts in [1, 2, 3, 50, u64::MAX] {
        let max_dispatch_flops = whole.work.flops / parts;
        let planner = Planner::new(DeviceProfile { max_dispatch_flops, ..device.clone() });
        let recording = planner
            .plan_as(whole.choice.expect("it has choices"), &operation, &CONFIG, 1000)
            .expect("it fits");
        let first = firsts(&recording, "backward_params", offset_of!(OuterDims, first));
        let end = firsts(&recording, "backward_params", offset_of!(OuterDims, end));
        assert!(first.len() as u64 >= parts.min(blocks.into()));
        let mut next = 0;
        for ((first, grid), (end, _)) in first.into_iter().zip(end) {
            let [x, _, z] = grid.at(1000);
            assert!(first == next && end - first == x * z);
            next = end;
        }
        assert_eq!(next, blocks);
    }
}
