//! Properties that hold for any numbers: micro-batches add up, one expert is plain LoRA, a fresh adapter
//! changes nothing, halves survive, and a NaN or infinite gradient affects only its own element.

use std::sync::Arc;

use hydralora::twin::{self, Approx};
use hydralora::{Adapter, Element, LinearDirection, Router, WriteMode};

use crate::case::{Case, Operation, Shape};
use crate::compare::{Distribution, Ratios};
use crate::device::{Device, Failure, Pending};
use crate::job::{Results, Tensor};
use crate::modes;
use crate::op::Elements;
use crate::suite::Plan;

type Property = for<'a> fn(&'a dyn Device) -> Pending<'a, Option<Distribution>>;

/// The properties' trials on a device.
pub fn plans(device: &Arc<dyn Device>) -> Vec<Plan> {
    let properties: [(&str, Property); 6] = [
        ("micro-batches-add-up", |device| Box::pin(micro_batches_add_up(device))),
        ("one-expert-is-plain-lora", |device| Box::pin(one_expert_is_plain_lora(device))),
        ("a-fresh-adapter-changes-nothing", |device| Box::pin(a_fresh_adapter_changes_nothing(device))),
        ("every-half-survives", |device| Box::pin(every_half_survives(device))),
        ("half-stores-round-as-promised", |device| Box::pin(half_stores_round_as_promised(device))),
        ("a-bad-gradient-stays-in-its-element", |device| {
            Box::pin(a_bad_gradient_stays_in_its_element(device))
        }),
    ];
    properties
        .into_iter()
        .map(|(name, property)| {
            let device = Arc::clone(device);
            Plan::new(
                format!("properties/{name}"),
                "properties",
                move || async move { property(&*device).await },
            )
        })
        .collect()
}

async fn micro_batches_add_up(device: &dyn Device) -> Result<Option<Distribution>, Failure> {
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
        for (name, result) in modes::run(device, &part, &job, 1).await? {
            match results.get_mut(&name) {
                Some(so_far) if name != "gradients" => so_far.extend(result),
                _ => drop(results.insert(name, result)),
            }
        }
    }
    Ok(Some(modes::compare(&whole, &results)?))
}

async fn one_expert_is_plain_lora(device: &dyn Device) -> Result<Option<Distribution>, Failure> {
    let case = Case::new(Operation::Step(Router::Input), Shape::new(25, [36, 20], [6, 1]));
    let job = case.job();
    let results = modes::run(device, &case, &job, 1).await?;
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
    // There is no router: only h is saved, and the router has no gradient.
    ratios.compare("saved", &results["saved"], &h)?;
    let gradients = config.layout()?.unpack(&results["gradients"])?;
    if !gradients.router.is_empty() {
        return Err(Failure::Failed("a lone expert's router has a gradient".to_owned()));
    }
    Ok(Some(ratios.distribution()?))
}

async fn a_fresh_adapter_changes_nothing(device: &dyn Device) -> Result<Option<Distribution>, Failure> {
    let shape = Shape::new(10, [40, 36], [4, 3]);
    let case = Case { write: WriteMode::Accumulate, ..Case::new(Operation::Forward(Router::Input), shape) };
    let config = shape.config(Router::Input);
    let fresh = config.layout()?.pack(&Adapter::initialise(&config, 7)?)?;
    let mut job = case.job();
    job.tensors
        .iter_mut()
        .filter(|tensor| tensor.name == "parameters")
        .for_each(|tensor| tensor.data.clone_from(&fresh));
    let results = modes::run(device, &case, &job, 1).await?;
    if results["y"] != job.tensor("y").data {
        return Err(Failure::Failed("B = 0 must leave y as it is".to_owned()));
    }
    Ok(Some(modes::compare(&job, &results)?))
}

/// A linear layer of four inputs and outputs whose weight is the identity.
fn identity(tokens: u32, sources: Element, targets: Element, write: WriteMode) -> Case {
    let operation = Operation::Linear { direction: LinearDirection::Forward, bias: false };
    let elements = Elements { sources, parameters: Element::F32, targets };
    Case { write, ..Case::new(operation, Shape::new(tokens, [4, 4], [1, 1])).stored_as(elements) }
}

async fn run_identity(
    device: &dyn Device,
    case: &Case,
    x: &[f32],
    y: Option<&[f32]>,
) -> Result<Vec<f32>, Failure> {
    let mut job = case.job();
    for tensor in &mut job.tensors {
        match tensor.name.as_str() {
            "weight" => tensor.data = (0..16).map(|at| if at % 5 == 0 { 1.0 } else { 0.0 }).collect(),
            "x" => *tensor = Tensor::input("x", 4, x.to_vec()).of(case.elements.sources),
            _ => {
                if let Some(y) = y {
                    *tensor = Tensor::update("y", 4, y.to_vec()).of(case.elements.targets);
                }
            }
        }
    }
    let mut results = modes::run(device, case, &job, 1).await?;
    Ok(results.remove("y").unwrap_or_default())
}

/// Adding zero to each of the 65,536 halves gives the same half again. NaN stays NaN, infinities stay, and
/// only numbers below the normal ones may become zero.
async fn every_half_survives(device: &dyn Device) -> Result<Option<Distribution>, Failure> {
    for (element, smallest_normal) in [(Element::F16, 2.0f32.powi(-14)), (Element::Bf16, f32::MIN_POSITIVE)] {
        let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
        let halves = element.decode(&bytes);
        let tokens = halves.len() as u32 / 4;
        let case = identity(tokens, Element::F32, element, WriteMode::Accumulate);
        let y = run_identity(device, &case, &vec![0.0; halves.len()], Some(&halves)).await?;
        for (before, after) in halves.into_iter().zip(y) {
            let same = before == after || (before.is_nan() && after.is_nan());
            let flushed = before.abs() < smallest_normal && after == 0.0;
            if !same && !flushed {
                return Err(Failure::Failed(format!("{element} {before:e} became {after:e}")));
            }
        }
    }
    Ok(None)
}

/// bf16 stores round to nearest, ties to even. f16 stores round to either neighbour, and to infinity where
/// IEEE 754 does.
async fn half_stores_round_as_promised(device: &dyn Device) -> Result<Option<Distribution>, Failure> {
    let upper = |bits: u32| f32::from_bits(bits);
    let bf16 = [
        (upper(0x3f80_8000), upper(0x3f80_0000)),
        (upper(0x3f81_8000), upper(0x3f82_0000)),
        (upper(0x3f80_8001), upper(0x3f81_0000)),
        (upper(0xbf80_7fff), upper(0xbf80_0000)),
        (f32::MAX, f32::INFINITY),
    ];
    let f16 = [
        (65504.0, 65504.0),
        (-65519.0, -65504.0),
        (65520.0, f32::INFINITY),
        (-1e9, f32::NEG_INFINITY),
        (f32::MAX, f32::INFINITY),
    ];
    for (element, pairs) in [(Element::Bf16, bf16), (Element::F16, f16)] {
        // Each token has one number, so that no infinity meets a zero of the weight. The zeros next to it in
        // memory must stay zero.
        let x: Vec<f32> = pairs.iter().flat_map(|&(number, _)| [number, 0.0, 0.0, 0.0]).collect();
        let y = run_identity(
            device,
            &identity(pairs.len() as u32, Element::F32, element, WriteMode::Overwrite),
            &x,
            None,
        )
        .await?;
        for ((number, expected), y) in pairs.into_iter().zip(y.chunks(4)) {
            if y != [expected, 0.0, 0.0, 0.0] {
                return Err(Failure::Failed(format!(
                    "{number:e} was stored as {element} {y:?}, not {expected:e}"
                )));
            }
        }
    }
    // If this NaN were rounded like a number, it would carry into the sign.
    let x = [f32::from_bits(0x7fff_ffff), 0.0, 0.0, 0.0];
    for element in [Element::Bf16, Element::F16] {
        let y =
            run_identity(device, &identity(1, Element::F32, element, WriteMode::Overwrite), &x, None).await?;
        if !y.iter().all(|y| y.is_nan()) {
            return Err(Failure::Failed(format!("NaN was stored as {element} {y:?}")));
        }
    }
    Ok(None)
}

/// Without clipping the optimiser computes no norm, so no element depends on another.
async fn a_bad_gradient_stays_in_its_element(device: &dyn Device) -> Result<Option<Distribution>, Failure> {
    let case = Case::new(Operation::AdamW { clip: false }, Shape::new(1, [36, 28], [4, 3]));
    let clean = modes::run(device, &case, &case.job(), 1).await?;
    let elements = clean["parameters"].len();
    for poison in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for poisoned in [0, elements / 2, elements - 1] {
            let mut job = case.job();
            let gradients = job.tensors.iter_mut().find(|tensor| tensor.name == "gradients of step 3");
            gradients.expect("the third step's gradients").data[poisoned] = poison;
            let results = modes::run(device, &case, &job, 1).await?;
            for name in ["parameters", "moments"] {
                for (at, (before, after)) in clean[name].iter().zip(&results[name]).enumerate() {
                    let wrong = if at % elements == poisoned {
                        name == "moments" && after.is_finite()
                    } else {
                        before.to_bits() != after.to_bits()
                    };
                    if wrong {
                        return Err(Failure::Failed(format!(
                            "{name}[{at}] is {after}, and {before} without {poison} at {poisoned}"
                        )));
                    }
                }
            }
        }
    }
    Ok(None)
}
