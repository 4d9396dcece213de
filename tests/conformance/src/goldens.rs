//! Comparison with what the official HydraLoRA code computes (goldens/README.md): the whole layer, frozen
//! part and adapter, forward and backward.
//!
//! The goldens also run in half precision, although no half can store the numbers that the official code was
//! given. The stored numbers are rounded, and their rounding errors become the bounds of the inputs. From
//! these the twin's rules derive, to first order, how far the layer's results may be from the official
//! code's.

use std::sync::Arc;

use hydralora::twin::{self, Approx};
use hydralora::{
    Adapter, BackwardInputOptions, BackwardParamsOptions, Config, Element, ForwardOptions, LinearDirection,
    LinearOptions, Operation, Router, Sharing, Weighting, WriteMode,
};
use safetensors::{Dtype, SafeTensors};

use crate::case::Planning;
use crate::compare::Ratios;
use crate::device::{Device, Failure};
use crate::job::{Job, Placement, Tensor, Values};
use crate::modes;
use crate::op::{Elements, LayerOp, Op, pack};
use crate::suite::Plan;

/// The precision of a layer, and how much of it runs.
#[derive(Clone, Copy)]
pub struct Form {
    pub elements: Elements,
    /// Whether backward runs too, or forward alone.
    pub training: bool,
}

impl Form {
    const F32: Self = Self { elements: Elements::F32, training: true };

    /// In training, the adapter and the frozen weights stay f32.
    fn in_half(element: Element, training: bool) -> Self {
        let parameters = if training { Element::F32 } else { element };
        Self { elements: Elements { sources: element, parameters, targets: element }, training }
    }

    fn name(self, golden: &str) -> String {
        let Self { elements: Elements { sources, .. }, training } = self;
        match (sources, training) {
            (Element::F32, _) => format!("goldens/{golden}"),
            (half, true) => format!("goldens/{golden}/{half}"),
            (half, false) => format!("goldens/{golden}/{half}/inference"),
        }
    }
}

/// A golden's name and the contents of its file.
pub type File = (String, Vec<u8>);

/// A trial for every golden, in f32.
pub fn plans(device: &Arc<dyn Device>, files: &[File]) -> Vec<Plan> {
    files.iter().map(|(name, bytes)| plan(device, name, bytes.clone(), Form::F32)).collect()
}

/// Trials for the goldens whose widths suit half precision, in training and in inference. f16 and bf16 take
/// turns.
pub fn half_plans(device: &Arc<dyn Device>, files: &[File]) -> Vec<Plan> {
    let fits = |(_, bytes): &&File| {
        Golden::parse(bytes).is_ok_and(|Golden { config: Config { d_in, d_out, .. }, .. }| {
            [d_in, d_out].iter().all(|width| width.is_multiple_of(4))
        })
    };
    let files = files.iter().filter(fits);
    files
        .zip([Element::F16, Element::Bf16].into_iter().cycle())
        .flat_map(|((name, bytes), element)| {
            [true, false].map(|training| plan(device, name, bytes.clone(), Form::in_half(element, training)))
        })
        .collect()
}

fn plan(device: &Arc<dyn Device>, name: &str, bytes: Vec<u8>, form: Form) -> Plan {
    let device = Arc::clone(device);
    Plan::new(form.name(name), "goldens", move || async move {
        let mut ratios = Ratios::default();
        Golden::parse(&bytes).map_err(Failure::Failed)?.compare(&*device, form, &mut ratios).await?;
        Ok(Some(ratios.distribution()?))
    })
}

/// A tensor of f32.
pub fn f32s(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f32>, String> {
    Ok(data(file, name, Dtype::F32)?.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// A tensor of f64.
pub fn f64s(file: &SafeTensors<'_>, name: &str) -> Result<Vec<f64>, String> {
    Ok(data(file, name, Dtype::F64)?.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect())
}

fn data<'a>(file: &SafeTensors<'a>, name: &str, dtype: Dtype) -> Result<&'a [u8], String> {
    let tensor = file.tensor(name).map_err(|error| format!("{name}: {error}"))?;
    if tensor.dtype() == dtype { Ok(tensor.data()) } else { Err(format!("{name} is {:?}", tensor.dtype())) }
}

/// A layer, its inputs, and what they should give.
pub struct Golden {
    pub config: Config,
    pub tokens: u32,
    pub adapter: Adapter,
    /// Weights that are given, before they are rounded to f32, and their gradient.
    pub gates: Option<Vec<f64>>,
    pub gates_gradient: Option<Vec<f64>>,
    pub x: Vec<f32>,
    pub g: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Option<Vec<f32>>,
    pub y: Vec<f64>,
    pub dx: Vec<f64>,
    pub gradients: Adapter<Approx>,
}

impl Golden {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let text = |key: &str| metadata.get(key).ok_or_else(|| format!("no {key} in the metadata"));
        let number = |key: &str| text(key)?.parse::<f64>().map_err(|error| format!("{key}: {error}"));
        let count = |key: &str| number(key).map(|number| number as u32);
        let f32s = |name: &str| f32s(&file, name);
        let f64s = |name: &str| f64s(&file, name);
        let expected = |name: &str| -> Result<Vec<Approx>, String> {
            Ok(f64s(&format!("expect.grad_{name}.weight"))?.into_iter().map(Approx::exact).collect())
        };
        let experts = count("experts")?;
        let weighting = if metadata.contains_key("top_k") {
            let renormalise = text("renormalise")?.parse();
            let renormalise = renormalise.map_err(|error| format!("renormalise: {error}"))?;
            Weighting::TopK { k: count("top_k")?, renormalise }
        } else {
            Weighting::Softmax
        };
        let external = text("router")? == "external";
        let a = match metadata.get("a").map(String::as_str) {
            None | Some("shared") => Sharing::Shared,
            Some("separate") => Sharing::Separate,
            Some(other) => return Err(format!("unknown a {other}")),
        };
        let a_names: Vec<String> = match a {
            Sharing::Shared => vec!["lora_A".to_owned()],
            Sharing::Separate => (0..experts).map(|i| format!("lora_A{i}")).collect(),
        };
        Ok(Self {
            config: Config {
                d_in: count("d_in")?,
                d_out: count("d_out")?,
                rank: count("rank")?,
                experts,
                scaling: number("scaling")? as f32,
                router: match text("router")?.as_str() {
                    "input" => Router::Input,
                    "latent" => Router::Latent,
                    "external" => Router::GivenWeights,
                    other => return Err(format!("unknown router {other}")),
                },
                a,
                weighting,
                ..Default::default()
            },
            tokens: count("tokens")?,
            adapter: Adapter {
                a: a_names
                    .iter()
                    .map(|name| f32s(&format!("{name}.weight")))
                    .collect::<Result<Vec<_>, _>>()?
                    .concat(),
                router: if external { Vec::new() } else { f32s("lora_route.weight")? },
                router_bias: Vec::new(),
                b: (0..experts).map(|i| f32s(&format!("lora_B{i}.weight"))).collect::<Result<_, _>>()?,
            },
            gates: external
                .then(|| f32s("gates"))
                .transpose()?
                .map(|gates| gates.into_iter().map(f64::from).collect()),
            gates_gradient: external.then(|| f64s("expect.grad_gates")).transpose()?,
            x: f32s("x")?,
            g: f32s("grad_y")?,
            weight: f32s("weight")?,
            bias: file.tensor("bias").is_ok().then(|| f32s("bias")).transpose()?,
            y: f64s("expect.y")?,
            dx: f64s("expect.grad_x")?,
            gradients: Adapter {
                a: a_names.iter().map(|name| expected(name)).collect::<Result<Vec<_>, _>>()?.concat(),
                router: if external { Vec::new() } else { expected("lora_route")? },
                router_bias: Vec::new(),
                b: (0..experts).map(|i| expected(&format!("lora_B{i}"))).collect::<Result<_, _>>()?,
            },
        })
    }

    /// The layer's tensors in f32.
    fn tensors(&self) -> Result<Vec<Tensor>, String> {
        let Config { d_in, d_out, .. } = self.config;
        let layout = self.config.layout().map_err(|error| error.to_string())?;
        let parameters = layout.pack(&self.adapter).map_err(|error| error.to_string())?;
        let state = self.config.state_len();
        let mut tensors = vec![
            Tensor::input("x", d_in, self.x.clone()),
            Tensor::input("g", d_out, self.g.clone()),
            Tensor::input("weight", d_in, self.weight.clone()),
            Tensor::input("parameters", layout.len() as u32, parameters),
            Tensor::poisoned("y", d_out, self.y.len()),
            Tensor::poisoned("dx", d_in, self.dx.len()),
            Tensor::poisoned("saved", state, (self.tokens * state) as usize),
            Tensor::poisoned("dstate", state, (self.tokens * state) as usize),
            Tensor::poisoned("gradients", layout.len() as u32, layout.len()),
        ];
        let experts = self.config.experts;
        let gates = self.gates.iter().map(|gates| gates.iter().map(|&gate| gate as f32).collect());
        tensors.extend(gates.map(|gates| Tensor::input("gates", experts, gates)));
        tensors.extend(self.bias.clone().map(|bias| Tensor::input("bias", d_out, bias)));
        Ok(tensors)
    }

    fn ops(&self, Form { elements, training }: Form) -> Vec<Box<dyn Op>> {
        let Self { config, tokens, .. } = *self;
        let Elements { sources, parameters, targets } = elements;
        let linear = |direction, bias| {
            let (source, weight, target) = (sources, parameters, targets);
            let write = WriteMode::Overwrite;
            Operation::Linear(LinearOptions {
                direction,
                bias,
                write,
                source,
                weight,
                target,
                ..Default::default()
            })
        };
        let write = WriteMode::Accumulate;
        let forward = ForwardOptions {
            write,
            save: training,
            x: sources,
            parameters,
            y: targets,
            ..Default::default()
        };
        let mut operations =
            vec![linear(LinearDirection::Forward, self.bias.is_some()), Operation::Forward(forward)];
        if training {
            let input = BackwardInputOptions { g: sources, dx: Some((targets, write)), ..Default::default() };
            let params = BackwardParamsOptions {
                write: WriteMode::Overwrite,
                x: sources,
                g: sources,
                ..Default::default()
            };
            operations.extend([
                linear(LinearDirection::Backward, false),
                Operation::BackwardInput(input),
                Operation::BackwardParams(params),
            ]);
        }
        let op = |operation| Box::new(LayerOp::new(operation, config, tokens)) as Box<dyn Op>;
        operations.into_iter().map(op).collect()
    }

    /// The layer as a job in this form, and the twin's values for the numbers that the official code was
    /// given.
    fn job(&self, form: Form) -> Result<(Job, Values), String> {
        let given = self.tensors()?;
        let stored = |tensor: &Tensor| match tensor.name.as_str() {
            "x" | "g" => form.elements.sources,
            "weight" | "parameters" => form.elements.parameters,
            "y" | "dx" => form.elements.targets,
            _ => Element::F32,
        };
        let mut values = Values::new();
        let mut tensors = Vec::new();
        for given in given {
            let element = stored(&given);
            let stored = given.clone().of(element);
            let off = |(&given, stored): (&f32, Approx)| {
                let given = f64::from(given);
                Approx { value: given, bound: (given - stored.value).abs() + stored.bound }
            };
            let exact = twin::exact_in(element, &stored.data);
            values.insert(given.name, given.data.iter().zip(exact).map(off).collect());
            tensors.push(stored);
        }
        let rounded = |&value: &f64| Approx { value, bound: (value - f64::from(value as f32)).abs() };
        values
            .extend(self.gates.iter().map(|gates| ("gates".to_owned(), gates.iter().map(rounded).collect())));
        let job = Job::new(tensors, self.ops(form));
        job.ops.iter().for_each(|op| op.twin(&mut values));
        Ok((job, values))
    }

    /// Compares the layer with the golden, within the twin's bounds, and the twin with the golden.
    pub async fn compare(&self, device: &dyn Device, form: Form, ratios: &mut Ratios) -> Result<(), Failure> {
        let (job, twins) = self.job(form)?;
        let results = modes::run_job(device, &job, Placement::Separate, Planning::Device, 1).await?;
        let values = |values: &[f64]| values.iter().copied().map(Approx::exact).collect();
        let mut goldens = vec![("y", values(&self.y))];
        if form.training {
            goldens.push(("dx", values(&self.dx)));
            goldens.push(("gradients", pack(&self.config, &self.gradients)));
            if let Some(gradient) = &self.gates_gradient {
                // The last columns of dstate; nobody else says what the others are.
                let mut dstate = twins["dstate"].clone();
                let (state, experts) = (self.config.state_len() as usize, self.config.experts as usize);
                for (row, gradient) in dstate.chunks_mut(state).zip(gradient.chunks(experts)) {
                    let exact: Vec<Approx> = values(gradient);
                    row[state - experts..].copy_from_slice(&exact);
                }
                goldens.push(("dstate", dstate));
            }
        }
        for (name, golden) in goldens {
            let twin = &twins[name];
            if let Some(at) = (0..twin.len()).find(|&at| {
                let Approx { value, bound } = twin[at];
                (golden[at].value - value).abs() > bound
            }) {
                return Err(Failure::Failed(format!(
                    "{name}[{at}]: the twin gives {:?}, the golden {}",
                    twin[at], golden[at].value
                )));
            }
            let expected: Vec<Approx> = golden
                .iter()
                .zip(twin)
                .map(|(golden, twin)| Approx { value: golden.value, ..*twin })
                .collect();
            ratios.compare(name, &results[name], &expected)?;
        }
        Ok(())
    }
}
