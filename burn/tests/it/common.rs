//! A layer with its inputs, and everything that it gives.

use std::iter::zip;
use std::sync::LazyLock;

use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_hydralora::hydralora::{Adapter, Config, GateRows, Layout, Router};
use burn_hydralora::{Extras, HydraLora};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// burn's default device, with its default memory pools.
pub static DEVICE: LazyLock<Device> =
    LazyLock::new(|| burn_hydralora::init(Device::wgpu_options()).expect("a wgpu device"));

/// A layer and numbers for everything that it takes.
pub struct Case {
    pub name: String,
    pub config: Config,
    pub tokens: usize,
    pub adapter: Adapter,
    pub x: Vec<f32>,
    pub g: Vec<f32>,
    pub base: Option<Vec<f32>>,
    pub gates: Option<(Vec<f32>, GateRows)>,
    pub mask: Option<Vec<f32>>,
}

/// What a layer gives, and the gradients of the sum of y * g.
#[derive(Debug, Clone, Default)]
pub struct Results {
    pub y: Vec<f32>,
    pub dx: Vec<f32>,
    pub gradients: Vec<f32>,
    pub base: Vec<f32>,
    pub gates: Vec<f32>,
}

/// Whose operations run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum By {
    Module,
    Formula,
}

impl Case {
    pub fn new(name: &str, config: Config, tokens: usize) -> Self {
        let rng = &mut StdRng::seed_from_u64(tokens as u64);
        let Config { d_in, d_out, rank, experts, .. } = config;
        let mut adapter = Adapter::initialise(&config, 7).expect("a valid configuration");
        adapter.b = (0..experts).map(|_| uniform(rng, (d_out * rank) as usize)).collect();
        adapter.router_bias.iter_mut().for_each(|bias| *bias = rng.random_range(-1.0..1.0));
        let x = uniform(rng, tokens * d_in as usize);
        let g = uniform(rng, tokens * d_out as usize);
        Self { name: name.to_owned(), config, tokens, adapter, x, g, base: None, gates: None, mask: None }
    }

    pub fn with_base(self) -> Self {
        let rng = &mut StdRng::seed_from_u64(1);
        Self { base: Some(uniform(rng, self.g.len())), ..self }
    }

    pub fn with_mask(self) -> Self {
        let mut case = self;
        case.mask = Some((0..case.tokens).map(|token| if token % 3 == 1 { 0.0 } else { 1.0 }).collect());
        let masked = case.config.d_in as usize..2 * case.config.d_in as usize;
        case.x[masked].fill(f32::NAN);
        case
    }

    pub fn with_gates(self, rows: GateRows) -> Self {
        let rng = &mut StdRng::seed_from_u64(2);
        let count = rows.count(self.tokens as u32) * self.config.experts;
        Self { gates: Some((uniform(rng, count as usize), rows)), ..self }
    }

    pub fn layout(&self) -> Layout {
        self.config.layout().expect("a valid configuration")
    }

    pub fn module(&self, device: &Device) -> HydraLora {
        HydraLora::try_from_adapter(&self.config, &self.adapter, device).expect("an adapter").with_seed(0)
    }

    /// Everything that the layer gives on an autodiff device, all of it tracked.
    pub fn run(&self, by: By, device: &Device) -> Results {
        self.run_as(by, device, DType::F32)
    }

    /// The same with activations of a type.
    pub fn run_as(&self, by: By, device: &Device, dtype: DType) -> Results {
        let device = device.clone().autodiff();
        let Config { d_in, d_out, experts, .. } = self.config;
        let [d_in, d_out, experts] = [d_in, d_out, experts].map(|length| length as usize);
        let leaf =
            |values: &Vec<f32>, columns: usize| matrix(values, columns, &device).cast(dtype).require_grad();
        let module = self.module(&device);
        let x = leaf(&self.x, d_in);
        let base = self.base.as_ref().map(|base| leaf(base, d_out));
        let gates = self.gates.as_ref().map(|(gates, _)| matrix(gates, experts, &device).require_grad());
        let mask = self.mask.as_ref().map(|mask| Tensor::from_data(&mask[..], &device));
        let extras = Extras { base: base.clone().map(|base| base * 1.0), gates: gates.clone(), mask };
        let y = match by {
            By::Module => module.forward_with(x.clone(), extras),
            By::Formula => module.formula(x.clone(), extras),
        };
        let loss = (y.clone() * matrix(&self.g, d_out, &device).cast(dtype)).sum();
        let gradients = loss.backward();
        let of = |leaf: &Tensor<2>| values(leaf.grad(&gradients).expect("a gradient"));
        let of_parameters = module.parameters.val().grad(&gradients).expect("the parameters' gradient");
        assert_eq!(of_parameters.dtype(), DType::F32);
        Results {
            y: values(y),
            dx: of(&x),
            gradients: values(of_parameters),
            base: base.as_ref().map(of).unwrap_or_default(),
            gates: gates.as_ref().map(of).unwrap_or_default(),
        }
    }
}

impl Results {
    /// Holds both to the same values, up to a part of the largest.
    pub fn assert_close(&self, other: &Self, tolerance: f32, name: &str) {
        assert_close(&self.y, &other.y, tolerance, &format!("{name}: y"));
        assert_close(&self.dx, &other.dx, tolerance, &format!("{name}: dx"));
        assert_close(&self.gradients, &other.gradients, tolerance, &format!("{name}: gradients"));
        assert_close(&self.base, &other.base, tolerance, &format!("{name}: gradient of the base"));
        assert_close(&self.gates, &other.gates, tolerance, &format!("{name}: gradient of the gates"));
    }
}

pub fn assert_close(ours: &[f32], theirs: &[f32], tolerance: f32, name: &str) {
    assert_eq!(ours.len(), theirs.len(), "{name}");
    let largest = theirs.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    for (at, (ours, theirs)) in zip(ours, theirs).enumerate() {
        // A NaN is not close to anything.
        let close = (ours - theirs).abs() <= tolerance * largest;
        assert!(close, "{name}[{at}] is {ours}, not {theirs}, of at most {largest}");
    }
}

/// Runs a test once more in a process of its own; true in that process.
pub fn in_own_process(test: &str) -> bool {
    const CHILD: &str = "BURN_HYDRALORA_TEST";
    if std::env::var_os(CHILD).is_some() {
        return true;
    }
    let mut child = std::process::Command::new(std::env::current_exe().expect("the tests"));
    let output = child.args(["--exact", test]).env(CHILD, test).output().expect("a process");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

pub fn uniform(rng: &mut StdRng, length: usize) -> Vec<f32> {
    (0..length).map(|_| rng.random_range(-1.0..1.0)).collect()
}

pub fn random(rows: usize, columns: usize, seed: u64, device: &Device) -> Tensor<2> {
    matrix(&uniform(&mut StdRng::seed_from_u64(seed), rows * columns), columns, device)
}

pub fn matrix(values: &[f32], columns: usize, device: &Device) -> Tensor<2> {
    let shape = [values.len() / columns, columns];
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

pub fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.try_into_vec_as().expect("burn reads it")
}

/// The layers of the tests: every option of the library, in odd and in even shapes.
pub fn cases() -> Vec<Case> {
    use burn_hydralora::hydralora::{Sharing, Weighting};
    let plain = Config { d_in: 24, d_out: 20, rank: 4, experts: 3, scaling: 2.0, ..Config::DEFAULT };
    let top = |renormalise| Weighting::TopK { k: 2, renormalise };
    let given = Config { router: Router::GivenWeights, ..plain };
    let logits = Config { router: Router::GivenLogits, ..plain };
    let case = |name: &str, config: Config| Case::new(name, config, 6);
    let odd = Config { d_in: 33, d_out: 17, rank: 3, experts: 5, ..plain };
    let bias = Config { router_bias: true, ..plain };
    vec![
        case("plain", plain),
        case("base", plain).with_base(),
        Case::new("odd", odd, 7).with_base(),
        case("one expert", Config { experts: 1, ..plain }),
        case("latent router", Config { router: Router::Latent, ..plain }),
        case("an A for each expert", Config { a: Sharing::Separate, ..odd }),
        case("top k", Config { weighting: top(false), ..plain }),
        case("top k, renormalised", Config { weighting: top(true), ..plain }),
        case("one sigmoid", Config { experts: 1, weighting: Weighting::Sigmoid, ..bias }),
        case("sigmoids", Config { weighting: Weighting::NormalisedSigmoid, temperature: 0.7, ..plain }),
        case("bias", bias),
        case("bias of a latent router", Config { router: Router::Latent, ..bias }),
        case("given weights", given).with_gates(GateRows::Token).with_base(),
        case("given weights of sequences", given).with_gates(GateRows::Sequence(2)),
        case("given logits of a batch", logits).with_gates(GateRows::Batch),
        case("mask", plain).with_mask().with_base(),
        case("mask without base", bias).with_mask(),
    ]
}
