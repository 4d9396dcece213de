//! Training by burn's `Learner` is training by its optimiser, and the example runs.

use std::process::Command;
use std::sync::Arc;

use burn::data::dataloader::batcher::Batcher;
use burn::data::dataloader::{DataLoader, DataLoaderBuilder};
use burn::data::dataset::InMemDataset;
use burn::module::Module;
use burn::nn::LinearConfig;
use burn::nn::loss::{MseLoss, Reduction};
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Distribution, Tensor};
use burn::train::metric::LossMetric;
use burn::train::{InferenceStep, Learner, RegressionOutput, SupervisedTraining, TrainOutput, TrainStep};
use burn_hydralora::{HydraLinear, HydraLoraConfig};

const STEPS: usize = 20;
const RATE: f64 = 1e-2;

#[derive(Module, Debug)]
struct Model {
    layer: HydraLinear,
}

#[derive(Clone, Debug)]
struct Pair {
    x: Tensor<2>,
    target: Tensor<2>,
}

impl InferenceStep for Model {
    type Input = Pair;
    type Output = RegressionOutput;

    fn step(&self, Pair { x, target }: Pair) -> RegressionOutput {
        let y = self.layer.forward(x);
        let loss = MseLoss::new().forward(y.clone(), target.clone(), Reduction::Mean);
        RegressionOutput::new(loss, y, target)
    }
}

impl TrainStep for Model {
    type Input = Pair;
    type Output = RegressionOutput;

    fn step(&self, pair: Pair) -> TrainOutput<RegressionOutput> {
        let output = InferenceStep::step(self, pair);
        TrainOutput::new(self, output.loss.backward(), output)
    }
}

/// The same pair for each item.
struct Same(Pair);

impl Batcher<(), Pair> for Same {
    fn batch(&self, _items: Vec<()>, device: &Device) -> Pair {
        let Self(Pair { x, target }) = self;
        let [x, target] = [x, target].map(|tensor| tensor.clone().to_device(device));
        Pair { x, target }
    }
}

#[test]
fn the_learner_trains_as_the_optimiser_does() {
    let device = burn_hydralora::init(Device::wgpu_options()).expect("a wgpu device");
    device.seed(1);
    let training = device.clone().autodiff();
    let adapter = HydraLoraConfig::new(24, 20, 4).with_experts(3).with_seed(Some(1)).init(&training);
    let model = Model { layer: HydraLinear::new(LinearConfig::new(24, 20).init(&training), adapter) };
    let random = |columns| Tensor::<2>::random([32, columns], Distribution::Default, &device);
    let pair = Pair { x: random(24), target: random(20) };
    let loss = |model: &Model| {
        let output = InferenceStep::step(model, pair.clone());
        output.loss.try_into_scalar::<f32>().expect("a loss")
    };
    let adamw = || AdamWConfig::new().init();

    let (mut by_optimiser, mut optimiser) = (model.clone(), adamw());
    for _ in 0..STEPS {
        let pair = Same(pair.clone()).batch(Vec::new(), &training);
        let output = InferenceStep::step(&by_optimiser, pair);
        let gradients = GradientsParams::from_grads(output.loss.backward(), &by_optimiser);
        by_optimiser = optimiser.step(RATE, by_optimiser, gradients);
    }

    let loader = |items: usize| -> Arc<dyn DataLoader<Pair>> {
        let builder = DataLoaderBuilder::new(Same(pair.clone())).batch_size(1).set_device(training.clone());
        builder.build(InMemDataset::new(vec![(); items]))
    };
    let logs = tempfile::tempdir().expect("a folder");
    let result = SupervisedTraining::<Model>::new(logs.path(), loader(STEPS), loader(1))
        .metrics((LossMetric::new(),))
        .with_application_logger(None)
        .launch(Learner::new(model.clone(), adamw(), RATE));
    assert!(result.error.is_none(), "{:?}", result.error);

    let [first, ours, theirs] = [&model.valid(), &result.model, &by_optimiser.valid()].map(loss);
    assert!(theirs < 0.5 * first, "{theirs} after {first}");
    assert!((ours - theirs).abs() <= 1e-4 * theirs, "{ours}, and by the optimiser {theirs}");
    let weights = |model: &Model| model.layer.linear.weight.val().into_data();
    assert_eq!(weights(&result.model), weights(&model.valid()), "the layer is frozen");
}

#[test]
fn the_example_runs() {
    let mut example = Command::new(env!("CARGO_BIN_EXE_transformer"));
    let output = example.args(["--base-steps", "2", "--steps", "2", "--sequences", "4"]).output();
    let output = output.expect("a process");
    let [table, progress] = [&output.stdout, &output.stderr].map(|said| String::from_utf8_lossy(said));
    assert!(output.status.success(), "{table}{progress}");
    for method in ["frozen base", "HydraLoRA", "burn's Lora"] {
        let row = table.lines().find(|line| line.starts_with(&format!("| {method} |")));
        let row = row.unwrap_or_else(|| panic!("{method} has no row: {table}{progress}"));
        // A byte has 8 bits before anything is learnt.
        let mean: f64 = row.rsplit('|').nth(1).expect("a mean").trim().parse().expect("a number");
        assert!((4.0..10.0).contains(&mean), "{row}");
    }
    for method in ["base", "HydraLoRA", "burn's Lora"] {
        assert!(
            progress.lines().any(|line| line.starts_with(method) && line.contains("bits a byte")),
            "{progress}"
        );
    }
}
