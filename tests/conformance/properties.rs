//! What holds whatever the numbers are: micro-batches add up, one expert is plain LoRA, a fresh
//! adapter changes nothing.

use std::sync::Arc;

use hydralora::twin::{self, Approx};
use hydralora::{Adapter, Router, WriteMode};

use crate::case::{Case, Operation, Shape};
use crate::compare::{Distribution, Ratios};
use crate::device::{Device, Failure};
use crate::job::{Job, Memory, Placement, Results};
use crate::modes;
use crate::suite::Plan;

type Property = fn(&dyn Device) -> Result<Option<Distribution>, Failure>;

/// The properties' trials on a device.
pub fn plans(device: &Arc<dyn Device>) -> Vec<Plan> {
    let properties: [(&str, Property); 3] = [
        ("micro-batches-add-up", micro_batches_add_up),
        ("one-expert-is-plain-lora", one_expert_is_plain_lora),
        ("a-fresh-adapter-changes-nothing", a_fresh_adapter_changes_nothing),
    ];
    properties
        .into_iter()
        .map(|(name, property)| {
            let device = Arc::clone(device);
            Plan::new(format!("properties/{name}"), "properties", move || property(&*device))
        })
        .collect()
}

fn run(device: &dyn Device, case: &Case, job: &Job) -> Result<Results, Failure> {
    let memory = Memory::new(job, Placement::Separate);
    Ok(memory.results(job, &device.run(job, &memory, case.planning, 1)?)?)
}

fn micro_batches_add_up(device: &dyn Device) -> Result<Option<Distribution>, Failure> {
    const TOKENS: u32 = 50;
    const SPLIT: u32 = 21;
    let case = |tokens| {
        Case::new(Operation::Step(Router::Input), Shape::new(tokens, [48, 40], [4, 3])).accumulating()
    };
    let whole = case(TOKENS).job();
    let mut results = Results::new();
    for tokens in [0..SPLIT, SPLIT..TOKENS] {
        let part = case(tokens.end - tokens.start);
        let mut job = part.job();
        for tensor in &mut job.tensors {
            let all = &whole.tensor(&tensor.name).data;
            tensor.data = match (tensor.name.as_str(), results.get(&tensor.name)) {
                ("gradients", Some(so_far)) => so_far.clone(),
                ("gradients" | "parameters", _) => all.clone(),
                _ => all[tokens.start as usize * tensor.width..tokens.end as usize * tensor.width].to_vec(),
            };
        }
        for (name, result) in run(device, &part, &job)? {
            match results.get_mut(&name) {
                Some(so_far) if name != "gradients" => so_far.extend(result),
                _ => drop(results.insert(name, result)),
            }
        }
    }
    Ok(Some(modes::compare(&whole, &results)?))
}

fn one_expert_is_plain_lora(device: &dyn Device) -> Result<Option<Distribution>, Failure> {
    let case = Case::new(Operation::Step(Router::Input), Shape::new(25, [36, 20], [6, 1]));
    let job = case.job();
    let results = run(device, &case, &job)?;
    let config = case.shape.config(Router::Input);
    let (rank, d_in, d_out) = (6, 36, 20);
    // y = s B (A x), as two linear layers.
    let adapter = config.layout()?.unpack(&job.tensor("parameters").data)?;
    let h =
        twin::linear([d_in, rank], &twin::exact(&adapter.a), None, &twin::exact(&job.tensor("x").data), None);
    let scaling = Approx::rounded(f64::from(config.scaling));
    let scaled: Vec<Approx> = h.iter().map(|&h| scaling * h).collect();
    let mut ratios = Ratios::default();
    ratios.compare(
        "y",
        &results["y"],
        &twin::linear([rank, d_out], &twin::exact(&adapter.b[0]), None, &scaled, None),
    )?;
    if let Some(token) = results["saved"].chunks(rank + 1).position(|state| state[rank] != 1.0) {
        return Err(Failure::Failed(format!("the only expert's weight at token {token} is not 1")));
    }
    let gradients = config.layout()?.unpack(&results["gradients"])?;
    if gradients.router.iter().any(|&gradient| gradient != 0.0) {
        return Err(Failure::Failed("a lone expert's router has a gradient".to_owned()));
    }
    Ok(Some(ratios.distribution()?))
}

fn a_fresh_adapter_changes_nothing(device: &dyn Device) -> Result<Option<Distribution>, Failure> {
    let shape = Shape::new(10, [40, 36], [4, 3]);
    let case = Case { write: WriteMode::Accumulate, ..Case::new(Operation::Forward(Router::Input), shape) };
    let config = shape.config(Router::Input);
    let fresh = config.layout()?.pack(&Adapter::initialise(&config, 7)?)?;
    let mut job = case.job();
    job.tensors
        .iter_mut()
        .filter(|tensor| tensor.name == "parameters")
        .for_each(|tensor| tensor.data.clone_from(&fresh));
    let results = run(device, &case, &job)?;
    if results["y"] != job.tensor("y").data {
        return Err(Failure::Failed("B = 0 must leave y as it is".to_owned()));
    }
    Ok(Some(modes::compare(&job, &results)?))
}
