//! What the official HydraLoRA code computes (tests/goldens/README.md): the whole layer, frozen part
//! and adapter, forward and backward. `HYDRALORA_GOLDENS=DIR` puts another directory of such files in
//! front of the suite.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use hydralora::twin::{Approx, Parameters};
use hydralora::{Adapter, Config, LinearDirection, Router, WriteMode};
use include_dir::{Dir, include_dir};
use safetensors::{Dtype, SafeTensors};

use crate::case::Planning;
use crate::compare::{Distribution, Ratios};
use crate::device::{Device, Failure};
use crate::job::{Job, Placement, Tensor, Values};
use crate::modes;
use crate::op::{BackwardInput, BackwardParams, Elements, Forward, Linear, pack};
use crate::suite::Plan;

static OWN: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/tests/goldens");

/// A golden's trial on a device.
pub fn plans(device: &Arc<dyn Device>) -> Vec<Plan> {
    let plan = |name: String, bytes: Vec<u8>| {
        let device = Arc::clone(device);
        Plan::new(format!("goldens/{name}"), "goldens", move || {
            Golden::parse(&bytes).map_err(Failure::Failed)?.check(&*device).map(Some)
        })
    };
    match std::env::var_os("HYDRALORA_GOLDENS").map(PathBuf::from) {
        Some(directory) => match read(&directory) {
            Ok(files) => files.into_iter().map(|(name, bytes)| plan(name, bytes)).collect(),
            Err(message) => vec![Plan::new("goldens", "goldens", move || Err(Failure::Failed(message)))],
        },
        None => OWN
            .files()
            .filter(|file| file.path().extension().is_some_and(|extension| extension == "safetensors"))
            .map(|file| plan(stem(file.path()), file.contents().to_vec()))
            .collect(),
    }
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Every *.safetensors directly in `directory`, in name order.
///
/// # Errors
/// There is none, or it cannot be read.
pub fn read(directory: &Path) -> Result<Vec<(String, Vec<u8>)>, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push((stem(&path), std::fs::read(&path).map_err(failed)?));
        }
    }
    files.sort();
    if files.is_empty() {
        return Err(format!("no *.safetensors in {}: nothing would be tested", directory.display()));
    }
    Ok(files)
}

struct Golden {
    config: Config,
    tokens: u32,
    adapter: Adapter,
    x: Vec<f32>,
    g: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    y: Vec<f64>,
    dx: Vec<f64>,
    gradients: Parameters,
}

impl Golden {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let file = SafeTensors::deserialize(bytes).map_err(|error| error.to_string())?;
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| error.to_string())?;
        let metadata = header.metadata().clone().unwrap_or_default();
        let text = |key: &str| metadata.get(key).ok_or_else(|| format!("no {key} in the metadata"));
        let number = |key: &str| text(key)?.parse::<f64>().map_err(|error| format!("{key}: {error}"));
        let count = |key: &str| number(key).map(|number| number as u32);
        let data = |name: &str, dtype: Dtype| {
            let tensor = file.tensor(name).map_err(|error| format!("{name}: {error}"))?;
            if tensor.dtype() == dtype {
                Ok(tensor.data())
            } else {
                Err(format!("{name} is {:?}", tensor.dtype()))
            }
        };
        let f32s = |name: &str| -> Result<Vec<f32>, String> {
            let bytes = data(name, Dtype::F32)?.as_chunks().0;
            Ok(bytes.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
        };
        let f64s = |name: &str| -> Result<Vec<f64>, String> {
            let bytes = data(name, Dtype::F64)?.as_chunks().0;
            Ok(bytes.iter().map(|&bytes| f64::from_le_bytes(bytes)).collect())
        };
        let expected = |name: &str| -> Result<Vec<Approx>, String> {
            Ok(f64s(&format!("expect.grad_{name}.weight"))?.into_iter().map(Approx::exact).collect())
        };
        let experts = count("experts")?;
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
                    other => return Err(format!("unknown router {other}")),
                },
            },
            tokens: count("tokens")?,
            adapter: Adapter {
                a: f32s("lora_A.weight")?,
                router: f32s("lora_route.weight")?,
                b: (0..experts).map(|i| f32s(&format!("lora_B{i}.weight"))).collect::<Result<_, _>>()?,
            },
            x: f32s("x")?,
            g: f32s("grad_y")?,
            weight: f32s("weight")?,
            bias: file.tensor("bias").is_ok().then(|| f32s("bias")).transpose()?,
            y: f64s("expect.y")?,
            dx: f64s("expect.grad_x")?,
            gradients: Parameters {
                a: expected("lora_A")?,
                router: expected("lora_route")?,
                b: (0..experts).map(|i| expected(&format!("lora_B{i}"))).collect::<Result<_, _>>()?,
            },
        })
    }

    fn job(&self) -> Result<Job, String> {
        let Self { config, tokens, .. } = *self;
        let Config { d_in, d_out, .. } = config;
        let layout = config.layout().map_err(|error| error.to_string())?;
        let parameters = layout.pack(&self.adapter).map_err(|error| error.to_string())?;
        let state = config.state_len();
        let mut tensors = vec![
            Tensor::input("x", d_in, self.x.clone()),
            Tensor::input("g", d_out, self.g.clone()),
            Tensor::input("weight", d_in, self.weight.clone()),
            Tensor::input("parameters", layout.len() as u32, parameters),
            Tensor::poisoned("y", d_out, self.y.len()),
            Tensor::poisoned("dx", d_in, self.dx.len()),
            Tensor::poisoned("saved", state, (tokens * state) as usize),
            Tensor::poisoned("dstate", state, (tokens * state) as usize),
            Tensor::poisoned("gradients", layout.len() as u32, layout.len()),
        ];
        tensors.extend(self.bias.clone().map(|bias| Tensor::input("bias", d_out, bias)));
        let linear = |direction, bias| Linear {
            direction,
            d_in,
            d_out,
            tokens,
            bias,
            write: WriteMode::Overwrite,
            elements: Elements::F32,
        };
        let write = WriteMode::Accumulate;
        Ok(Job::new(
            tensors,
            vec![
                Box::new(linear(LinearDirection::Forward, self.bias.is_some())),
                Box::new(linear(LinearDirection::Backward, false)),
                Box::new(Forward { config, tokens, write, save: true, elements: Elements::F32 }),
                Box::new(BackwardInput { config, tokens, write, dx: true, elements: Elements::F32 }),
                Box::new(BackwardParams {
                    config,
                    tokens,
                    write: WriteMode::Overwrite,
                    elements: Elements::F32,
                }),
            ],
        ))
    }

    /// Holds the layer to the golden's values with the twin's bounds, and the twin to the golden.
    fn check(&self, device: &dyn Device) -> Result<Distribution, Failure> {
        let job = self.job()?;
        let results = modes::run_job(device, &job, Placement::Separate, Planning::Device, 1)?;
        let layout = self.config.layout()?;
        let values = |values: &[f64]| values.iter().copied().map(Approx::exact).collect();
        let goldens: Values = [
            ("y".to_owned(), values(&self.y)),
            ("dx".to_owned(), values(&self.dx)),
            ("gradients".to_owned(), pack(&self.config, &layout, &self.gradients)),
        ]
        .into();
        let twins = job.expected();
        let mut ratios = Ratios::default();
        for (name, golden) in goldens {
            let twin = &twins[&name];
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
            ratios.compare(&name, &results[&name], &expected)?;
        }
        Ok(ratios.distribution()?)
    }
}
