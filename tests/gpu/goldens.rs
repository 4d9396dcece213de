//! What the official HydraLoRA code computes (tests/goldens/README.md), against the kernels.
//!
//! `HYDRALORA_GOLDENS=DIR` puts another directory of such files in front of the suite.

use std::path::{Path, PathBuf};

use hydralora::twin::{self, Approx};
use hydralora::{Adapter, Config, Linear, LinearDescriptor, LinearDirection, Router, WriteMode};
use safetensors::{Dtype, SafeTensors};

use crate::layer::{Layer, Tensors, Writes};
use crate::support::{GPU, Guarded, KERNELS, Ratios};

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
    da: Vec<f64>,
    drouter: Vec<f64>,
    db: Vec<Vec<f64>>,
}

impl Golden {
    fn read(path: &Path) -> Self {
        let bytes = std::fs::read(path).expect("a readable golden");
        let file = SafeTensors::deserialize(&bytes).expect("a safetensors file");
        let (_, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors header");
        let metadata = header.metadata().clone().expect("metadata");
        let text =
            |key: &str| metadata.get(key).unwrap_or_else(|| panic!("no {key} in the metadata")).as_str();
        let number =
            |key: &str| text(key).parse::<u32>().unwrap_or_else(|_| panic!("{key} is {}", text(key)));
        let f32s = |name: &str| -> Vec<f32> {
            let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
            assert_eq!(tensor.dtype(), Dtype::F32, "{name}");
            tensor
                .data()
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().expect("4 bytes")))
                .collect()
        };
        let f64s = |name: &str| -> Vec<f64> {
            let tensor = file.tensor(name).unwrap_or_else(|_| panic!("no tensor {name}"));
            assert_eq!(tensor.dtype(), Dtype::F64, "{name}");
            tensor
                .data()
                .chunks_exact(8)
                .map(|b| f64::from_le_bytes(b.try_into().expect("8 bytes")))
                .collect()
        };
        let experts = number("experts");
        let router = match text("router") {
            "input" => Router::Input,
            "latent" => Router::Latent,
            other => panic!("unknown router {other}"),
        };
        Self {
            config: Config {
                d_in: number("d_in"),
                d_out: number("d_out"),
                rank: number("rank"),
                experts,
                scaling: text("scaling").parse::<f64>().expect("a number") as f32,
                router,
            },
            tokens: number("tokens"),
            adapter: Adapter {
                a: f32s("lora_A.weight"),
                router: f32s("lora_route.weight"),
                b: (0..experts).map(|i| f32s(&format!("lora_B{i}.weight"))).collect(),
            },
            x: f32s("x"),
            g: f32s("grad_y"),
            weight: f32s("weight"),
            bias: file.tensor("bias").is_ok().then(|| f32s("bias")),
            y: f64s("expect.y"),
            dx: f64s("expect.grad_x"),
            da: f64s("expect.grad_lora_A.weight"),
            drouter: f64s("expect.grad_lora_route.weight"),
            db: (0..experts).map(|i| f64s(&format!("expect.grad_lora_B{i}.weight"))).collect(),
        }
    }

    /// Runs the whole layer, frozen part and adapter, forward and backward, and holds it to the
    /// golden's values with the twin's bounds.
    fn check(&self, name: &str, ratios: &mut Ratios) {
        let Self { config, tokens, .. } = *self;
        let Config { d_in, d_out, .. } = config;
        let layout = config.layout().expect("a valid configuration");
        let packed = layout.pack(&self.adapter).expect("matching shapes");
        let parameters = Guarded::new("parameters", &packed);
        let (x, g) = (Guarded::new("x", &self.x), Guarded::new("g", &self.g));
        let weight = Guarded::new("weight", &self.weight);
        let bias = self.bias.as_ref().map(|bias| Guarded::new("bias", bias));
        let y = Guarded::poisoned("y", self.y.len());
        let dx = Guarded::poisoned("dx", self.dx.len());
        let gradients = Guarded::poisoned("gradients", layout.len());
        let state = (tokens * config.state_len()) as usize;
        let (saved, dstate) = (Guarded::poisoned("saved", state), Guarded::poisoned("dstate", state));

        let linear = |direction, source, bias, target| {
            let (weight, write) = (weight.tensor(), WriteMode::Overwrite);
            let descriptor =
                LinearDescriptor { direction, d_in, d_out, tokens, source, weight, bias, target, write };
            Linear::prepare(&KERNELS, &descriptor).expect("preparing linear")
        };
        let bias = bias.as_ref().map(Guarded::tensor);
        let frozen = linear(LinearDirection::Forward, x.tensor(), bias, y.tensor());
        let frozen_backward = linear(LinearDirection::Backward, g.tensor(), None, dx.tensor());
        let tensors = Tensors {
            x: x.tensor(),
            g: g.tensor(),
            parameters: parameters.tensor(),
            y: y.tensor(),
            dx: dx.tensor(),
            saved: saved.tensor(),
            dstate: dstate.tensor(),
            gradients: gradients.tensor(),
        };
        let writes = Writes { activations: WriteMode::Accumulate, gradients: WriteMode::Overwrite };
        let layer = Layer::prepare(&KERNELS, config, tokens, &tensors, writes).expect("preparing a layer");
        GPU.submit(|pass| {
            frozen.encode(pass);
            frozen_backward.encode(pass);
            layer.encode(pass);
        });

        let bounds = self.bounds();
        let mut compare = |what: &str, actual: &[f32], golden: &[f64], bounds: &[Approx]| {
            assert_eq!(golden.len(), bounds.len(), "{name} {what}");
            for (at, (golden, twin)) in golden.iter().zip(bounds).enumerate() {
                let apart = (golden - twin.value).abs();
                assert!(
                    apart <= twin.bound,
                    "{name} {what}[{at}]: the twin's {twin:?} is not the golden's {golden}"
                );
            }
            let expected: Vec<Approx> =
                golden.iter().zip(bounds).map(|(&value, twin)| Approx { value, bound: twin.bound }).collect();
            ratios.compare(&format!("{name} {what}"), actual, &expected);
        };
        let actual = layout.unpack(&gradients.read()).expect("the layout's length");
        compare("y", &y.read(), &self.y, &bounds.y);
        compare("grad_x", &dx.read(), &self.dx, &bounds.dx);
        compare("grad A", &actual.a, &self.da, &bounds.gradients.a);
        compare("grad W_g", &actual.router, &self.drouter, &bounds.gradients.router);
        for (i, b) in actual.b.iter().enumerate() {
            compare(&format!("grad B_{i}"), b, &self.db[i], &bounds.gradients.b[i]);
        }
    }

    fn bounds(&self) -> Bounds {
        let Self { config, .. } = self;
        let dimensions = [config.d_in as usize, config.d_out as usize];
        let parameters = twin::Parameters::from(&self.adapter);
        let (x, g, weight) = (twin::exact(&self.x), twin::exact(&self.g), twin::exact(&self.weight));
        let bias = self.bias.as_deref().map(twin::exact);
        let base = twin::linear(dimensions, &weight, bias.as_deref(), &x, None);
        let twin::Output { y, h, w } = twin::forward(config, &parameters, &x, Some(&base));
        let base = twin::linear_backward(dimensions, &weight, &g, None);
        let input = twin::backward_input(config, &parameters, &h, &w, &g, Some(&base));
        let activations = twin::Activations { x: &x, g: &g, h: &h, w: &w, dh: &input.dh, dl: &input.dl };
        let gradients = twin::backward_params(config, &activations);
        Bounds { y, dx: input.dx, gradients }
    }
}

struct Bounds {
    y: Vec<Approx>,
    dx: Vec<Approx>,
    gradients: twin::ParameterGradients,
}

/// Every *.safetensors directly in `directory`, in name order.
fn goldens_in(directory: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<_> = entries
        .map(|entry| entry.expect("a readable directory").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"))
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "no *.safetensors in {}: nothing would be tested", directory.display());
    paths
}

#[test]
fn goldens() {
    let own = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    let directory = std::env::var_os("HYDRALORA_GOLDENS").map_or_else(own, PathBuf::from);
    let mut ratios = Ratios::default();
    for path in goldens_in(&directory) {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Golden::read(&path).check(&name, &mut ratios);
    }
    ratios.report("goldens");
}

#[test]
#[should_panic(expected = "nothing would be tested")]
fn a_directory_without_goldens_fails() {
    goldens_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
}
