//! Every kind of shader that the library generates, through naga and without a device. Each shader validates,
//! translates to every backend's language, keeps to WebGPU's default limits, has the bindings that the host
//! binds, and has only loops that end.

use std::collections::HashMap;

use hydralora::kernel::{Binding, BindingKind, Shader, Varying};
use hydralora::{
    AdamWHyper, BackwardInputOptions, BackwardParamsOptions, Config, DeviceProfile, Element, ForwardOptions,
    LinearOptions, Operation, Planner, Router, WriteMode, wgpu,
};
use hydralora_conformance::permutations::translate::{Language, translate, validate};
use hydralora_conformance::permutations::{permutations, with_matrices, with_subgroups, with_wide_products};
use naga::valid::ModuleInfo;
use naga::{
    AddressSpace, BinaryOperator, Block, BuiltIn, Expression, Function, Handle, Module, Statement,
    StorageAccess, TypeInner,
};

fn valid(shader: &Shader) -> (Module, ModuleInfo) {
    validate(&shader.source().wgsl).unwrap_or_else(|error| panic!("{shader:?}: {error}"))
}

/// The shaders of every plan that a tuner may choose, at some ranks and numbers of experts, and the plan's
/// workgroup memory. They differ in constants from `permutations`, the shaders that all tools compile.
fn candidates() -> HashMap<Shader, u64> {
    let write = WriteMode::Overwrite;
    let [x, parameters, y] = [Element::F32; 3];
    let operations = [
        Operation::Forward(ForwardOptions { write, save: true, x, parameters, y, ..Default::default() }),
        Operation::BackwardInput(BackwardInputOptions { g: y, dx: Some((x, write)), ..Default::default() }),
        Operation::BackwardParams(BackwardParamsOptions { write, x, g: y, ..Default::default() }),
        Operation::Linear(LinearOptions::default()),
    ];
    let mut shaders = HashMap::new();
    for [rank, experts] in [[1, 1], [3, 5], [8, 4], [64, 3], [5, 41]] {
        for (router, tokens, subgroup_lanes) in [
            (Router::Input, 300, 1),
            (Router::Latent, 300, 1),
            (Router::Latent, 300, 16),
            (Router::Latent, 1, 1),
            (Router::Latent, 1, 16),
        ] {
            let device = DeviceProfile::new(wgpu::Limits::default(), 8);
            let planner = Planner::new(DeviceProfile { subgroup_lanes, ..device });
            let config =
                &Config { d_in: 8, d_out: 8, rank, experts, scaling: 1.0, router, ..Default::default() };
            for operation in operations {
                let recordings = planner.candidates(&operation, config, tokens).expect("it fits");
                let steps = recordings.into_iter().flat_map(|recording| recording.steps);
                shaders.extend(steps.map(|step| (step.shader, step.workgroup_memory)));
            }
            let optimiser = planner
                .adamw(&[64], &AdamWHyper { max_norm: Some(1.0), ..AdamWHyper::default() })
                .expect("it fits");
            let steps = optimiser.into_iter().flat_map(|recording| recording.steps);
            shaders.extend(steps.map(|step| (step.shader, step.workgroup_memory)));
        }
    }
    shaders
}

/// Every shader that these tests check.
fn all() -> Vec<Shader> {
    let mut shaders = permutations();
    shaders.extend(with_subgroups());
    shaders.extend(with_wide_products());
    shaders.extend(with_matrices());
    shaders.extend(candidates().into_keys());
    shaders
}

#[test]
fn every_shader_translates_to_every_backend() {
    let (plain, subgroups) = (permutations(), with_subgroups());
    println!("{} shaders, {} with subgroup operations", plain.len(), subgroups.len());
    assert!(plain.len() > 300 && subgroups.len() > 200, "{} and {}", plain.len(), subgroups.len());
    for shader in plain.into_iter().chain(subgroups) {
        for (language, contents) in translations(&shader, &Language::ALL) {
            if language == Language::Hlsl {
                // naga defines the zeros of an array twice if an alias makes two types of it.
                let text = String::from_utf8(contents).expect("HLSL is text");
                let mut zeros: Vec<_> = text.lines().filter(|line| line.starts_with("ret_Zero")).collect();
                let lines = zeros.len();
                zeros.sort_unstable();
                zeros.dedup();
                assert_eq!(zeros.len(), lines, "{shader:?} defines zeros twice in HLSL");
            }
        }
    }
}

/// A shader in each of these languages.
fn translations(shader: &Shader, languages: &[Language]) -> Vec<(Language, Vec<u8>)> {
    let valid = valid(shader);
    let translated = |&language: &Language| {
        let contents = translate(&valid, language).unwrap_or_else(|error| panic!("{shader:?} to {error}"));
        assert!(!contents.is_empty(), "{shader:?} is empty in {language:?}");
        (language, contents)
    };
    languages.iter().map(translated).collect()
}

#[test]
fn rare_shaders_translate_to_the_languages_that_have_words_for_them() {
    for (shaders, languages, least) in
        [(with_wide_products(), &Language::WIDE[..], 5), (with_matrices(), &Language::MATRICES[..], 20)]
    {
        assert!(shaders.len() >= least, "{}", shaders.len());
        for shader in shaders {
            translations(&shader, languages);
        }
    }
}

/// naga's HLSL overlooks built-ins in structs, and DX12 then refuses the shader.
#[test]
fn subgroup_built_ins_are_arguments_by_themselves() {
    let is_subgroups = |binding: &Option<naga::Binding>| {
        let Some(naga::Binding::BuiltIn(built_in)) = binding else { return false };
        matches!(
            built_in,
            BuiltIn::NumSubgroups
                | BuiltIn::SubgroupId
                | BuiltIn::SubgroupInvocationId
                | BuiltIn::SubgroupSize
        )
    };
    for shader in with_subgroups() {
        let (module, _) = valid(&shader);
        let arguments = &module.entry_points[0].function.arguments;
        let mut found = arguments.iter().filter(|argument| is_subgroups(&argument.binding));
        assert!(found.next().is_some(), "{shader:?} has no subgroup built-in");
        for argument in arguments {
            if let TypeInner::Struct { members, .. } = &module.types[argument.ty].inner {
                let hidden = members.iter().find(|member| is_subgroups(&member.binding));
                assert!(hidden.is_none(), "{shader:?}: {hidden:?}");
            }
        }
    }
}

#[test]
fn bindings_are_what_the_host_says() {
    for shader in all() {
        let (module, _) = valid(&shader);
        let mut varying = Varying::Nothing;
        let mut found: Vec<(u32, String, BindingKind)> = module
            .global_variables
            .iter()
            .filter_map(|(_, variable)| {
                let binding = variable.binding.as_ref()?;
                if binding.group == 1 {
                    assert_eq!((binding.binding, variable.space), (0, AddressSpace::Uniform), "{shader:?}");
                    varying = match variable.name.as_deref() {
                        Some("batch") => Varying::Batch,
                        Some("hyper") => Varying::Hyper,
                        name => panic!("{shader:?} has {name:?} in group 1"),
                    };
                    return None;
                }
                assert_eq!(binding.group, 0);
                let kind = match variable.space {
                    AddressSpace::Uniform => BindingKind::Uniform,
                    AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => {
                        BindingKind::Write
                    }
                    AddressSpace::Storage { .. } => BindingKind::Read,
                    space => panic!("{shader:?} binds {space:?}"),
                };
                Some((binding.binding, variable.name.clone().unwrap_or_default(), kind))
            })
            .collect();
        found.sort_by_key(|(binding, ..)| *binding);
        let source = shader.source();
        assert_eq!(varying, source.varying, "{shader:?}");
        let expected: Vec<_> = (0..)
            .zip(source.bindings)
            .map(|(at, Binding { name, kind })| (at, name.to_owned(), kind))
            .collect();
        assert_eq!(found, expected, "{shader:?}");
        let storage = expected.iter().filter(|(.., kind)| *kind != BindingKind::Uniform).count();
        assert!(storage <= 7, "{shader:?} binds {storage} storage buffers");
    }
}

#[test]
fn workgroups_keep_to_default_limits() {
    let limits = wgpu::Limits::default();
    for shader in all() {
        let (module, _) = valid(&shader);
        let threads: u32 = module.entry_points[0].workgroup_size.iter().product();
        assert!(threads <= limits.max_compute_invocations_per_workgroup, "{shader:?}: {threads} threads");
        let memory = workgroup_memory(&module);
        assert!(memory <= limits.max_compute_workgroup_storage_size, "{shader:?}: {memory} bytes");
    }
}

fn workgroup_memory(module: &Module) -> u32 {
    let mut layouter = naga::proc::Layouter::default();
    layouter.update(module.to_ctx()).expect("a layout");
    let of_workgroup = module.global_variables.iter().filter(|(_, v)| v.space == AddressSpace::WorkGroup);
    of_workgroup.map(|(_, variable)| layouter[variable.ty].size).sum()
}

#[test]
fn plans_know_their_workgroup_memory() {
    let candidates = candidates();
    assert!(candidates.len() > 200, "only {} shaders", candidates.len());
    for (shader, planned) in candidates {
        assert_eq!(u64::from(workgroup_memory(&valid(&shader).0)), planned, "{shader:?}");
    }
}

/// The condition under which wgpu's loop countdown may be off: every loop counts a local unsigned variable up
/// by a positive constant, to a bound that the loop does not change.
#[test]
fn every_loop_ends() {
    let mut loops = 0;
    for shader in all() {
        let (module, _) = valid(&shader);
        let entry_points = module.entry_points.iter().map(|entry| &entry.function);
        for function in module.functions.iter().map(|(_, function)| function).chain(entry_points) {
            check_loops(&module, function, &function.body, &mut loops, &shader);
        }
    }
    assert!(loops > 1000, "only {loops} loops were found");
}

fn check_loops(module: &Module, function: &Function, block: &Block, loops: &mut usize, shader: &Shader) {
    for statement in block {
        for inner in blocks_of(statement) {
            check_loops(module, function, inner, loops, shader);
        }
        let Statement::Loop { body, continuing, break_if } = statement else { continue };
        *loops += 1;
        let name = function.name.as_deref().unwrap_or("main");
        let fail = |why: &str| -> ! { panic!("a loop of {name} in {shader:?} {why}") };
        assert!(break_if.is_none());
        // `for (..; counter < bound; ..)` begins with `if counter < bound {} else { break }`.
        let Some(Statement::If { condition, accept, reject }) =
            body.iter().find(|statement| !matches!(statement, Statement::Emit(_)))
        else {
            fail("does not begin with its condition")
        };
        if !accept.is_empty() || !matches!(reject.last(), Some(Statement::Break)) {
            fail("does not break when its condition fails");
        }
        let Expression::Binary { op: BinaryOperator::Less, left, right: bound } =
            function.expressions[*condition]
        else {
            fail("has another condition than counter < bound")
        };
        let Expression::Load { pointer: counter } = function.expressions[left] else {
            fail("counts no variable")
        };
        if !matches!(function.expressions[counter], Expression::LocalVariable(_)) {
            fail("counts no local variable");
        }
        let mut stored = Vec::new();
        stores(body, &mut stored);
        if stored.iter().any(|(pointer, _)| *pointer == counter) {
            fail("changes its counter in its body");
        }
        let mut increments = Vec::new();
        stores(continuing, &mut increments);
        let [(pointer, value)] = increments[..] else { fail("does not end with one increment") };
        let Expression::Binary { op: BinaryOperator::Add, left, right: step } = function.expressions[value]
        else {
            fail("does not add to its counter")
        };
        if pointer != counter
            || !matches!(function.expressions[left], Expression::Load { pointer } if pointer == counter)
        {
            fail("increments something else");
        }
        if constant(module, function, step).is_none_or(|step| step == 0) {
            fail("has no positive constant step");
        }
        stored.push((counter, value));
        if loads(function, bound).iter().any(|loaded| stored.iter().any(|(pointer, _)| pointer == loaded)) {
            fail("changes its bound");
        }
    }
}

fn blocks_of(statement: &Statement) -> Vec<&Block> {
    match statement {
        Statement::Block(block) => vec![block],
        Statement::If { accept, reject, .. } => vec![accept, reject],
        Statement::Switch { cases, .. } => cases.iter().map(|case| &case.body).collect(),
        Statement::Loop { body, continuing, .. } => vec![body, continuing],
        _ => vec![],
    }
}

/// Every store in a block, at any depth: pointer and value.
fn stores(block: &Block, found: &mut Vec<(Handle<Expression>, Handle<Expression>)>) {
    for statement in block {
        if let Statement::Store { pointer, value } = statement {
            found.push((*pointer, *value));
        }
        for inner in blocks_of(statement) {
            stores(inner, found);
        }
    }
}

/// The variables that an expression loads. It follows the kinds of expressions that bounds consist of.
fn loads(function: &Function, expression: Handle<Expression>) -> Vec<Handle<Expression>> {
    match function.expressions[expression] {
        Expression::Load { pointer } => vec![pointer],
        Expression::Binary { left, right, .. } => [loads(function, left), loads(function, right)].concat(),
        Expression::Select { condition, accept, reject } => {
            [condition, accept, reject].into_iter().flat_map(|part| loads(function, part)).collect()
        }
        Expression::Math { arg, arg1, arg2: None, .. } => {
            [Some(arg), arg1].into_iter().flatten().flat_map(|arg| loads(function, arg)).collect()
        }
        Expression::AccessIndex { base, .. } => loads(function, base),
        // These are fixed before the loop starts.
        Expression::Literal(_)
        | Expression::Constant(_)
        | Expression::FunctionArgument(_)
        | Expression::CallResult(_) => vec![],
        ref other => {
            panic!("a bound of {:?} is made of {other:?}, which this check does not know", function.name)
        }
    }
}

/// An unsigned constant's value.
fn constant(module: &Module, function: &Function, expression: Handle<Expression>) -> Option<u32> {
    let literal = match function.expressions[expression] {
        Expression::Constant(constant) => &module.global_expressions[module.constants[constant].init],
        ref other => other,
    };
    match literal {
        Expression::Literal(naga::Literal::U32(value)) => Some(*value),
        _ => None,
    }
}
