//! A loss falls under burn's optimiser as it does under the library's own, from the same seed.

use burn::nn::loss::{MseLoss, Reduction};
use burn::optim::{AdamWConfig, GradientsParams};
use burn_hydralora::HydraLora;
use burn_hydralora::hydralora::device::Gpu;
use burn_hydralora::hydralora::{
    AdamW, AdamWBuffers, AdamWDescriptor, AdamWHyper, Adapter, Batch, Config, Element, Kernels, Operation,
};

use crate::common::{Case, DEVICE, matrix, values};

const STEPS: u32 = 40;
const RATE: f64 = 1e-2;

/// The adapter is to learn another one.
struct Task {
    config: Config,
    tokens: u32,
    x: Vec<f32>,
    target: Vec<f32>,
}

impl Task {
    fn new() -> Self {
        let config = Config { d_in: 24, d_out: 20, rank: 4, experts: 3, scaling: 1.0, ..Config::DEFAULT };
        let teacher = Case::new("teacher", config, 64);
        let target = values(teacher.module(&DEVICE).forward(matrix(&teacher.x, 24, &DEVICE)));
        Self { config, tokens: 64, x: teacher.x, target }
    }

    fn fresh(&self) -> Adapter {
        Adapter::initialise(&self.config, 11).expect("an adapter")
    }

    /// The losses before each step.
    fn by_burn(&self) -> Vec<f32> {
        let device = DEVICE.clone().autodiff();
        let mut module =
            HydraLora::try_from_adapter(&self.config, &self.fresh(), &device).expect("an adapter");
        let AdamWHyper { beta1, beta2, epsilon, weight_decay, .. } = AdamWHyper::default();
        let adamw = AdamWConfig::new().with_beta_1(beta1).with_beta_2(beta2).with_epsilon(epsilon);
        let mut adamw = adamw.with_weight_decay(weight_decay).init();
        let (x, target) = (matrix(&self.x, 24, &device), matrix(&self.target, 20, &device));
        let mut losses = Vec::new();
        for _ in 0..STEPS {
            let loss = MseLoss::new().forward(module.forward(x.clone()), target.clone(), Reduction::Mean);
            losses.extend(values(loss.clone()));
            let gradients = GradientsParams::from_grads(loss.backward(), &module);
            module = adamw.step(RATE, module, gradients);
        }
        losses
    }

    /// The same by the library alone, on a device of its own.
    fn by_library(&self) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
        let Self { config, tokens, x, target } = self;
        let gpu = pollster::block_on(Gpu::from_env())?;
        let kernels = Kernels::new(&gpu.device, &gpu.queue);
        let layout = config.layout()?;
        let parameters = gpu.upload("parameters", &layout.pack(&self.fresh())?)?;
        let gradients = gpu.zeroed("gradients", layout.len())?;
        let moments = gpu.zeroed("moments", 2 * layout.len())?;
        let x = gpu.upload("x", x)?;
        let (y, g) = (gpu.zeroed("y", target.len())?, gpu.zeroed("g", target.len())?);
        let state = (tokens * config.state_len()) as usize;
        let (saved, dstate) = (gpu.zeroed("saved", state)?, gpu.zeroed("dstate", state)?);
        let dx = gpu.zeroed("dx", self.x.len())?;
        let tensors = [
            ("x", &x),
            ("parameters", &parameters),
            ("y", &y),
            ("saved", &saved),
            ("g", &g),
            ("dstate", &dstate),
            ("dx", &dx),
            ("gradients", &gradients),
        ];
        let operations = Operation::training_step(Element::F32).map(|operation| {
            let prepared = kernels.prepare(&operation, config, *tokens)?;
            let takes = |name: &str| prepared.recordings().any(|recording| recording.tensor(name).is_some());
            let taken = tensors.iter().filter(|(name, _)| takes(name));
            let taken: Vec<_> = taken.map(|&(name, buffer)| (name, buffer.into())).collect();
            prepared.bind(&taken)
        });
        let [forward, backward_input, backward_params] = operations;
        let backward = [backward_input?, backward_params?];
        let forward = forward?;
        let buffers = [AdamWBuffers {
            elements: layout.len(),
            parameters: (&parameters).into(),
            gradients: (&gradients).into(),
            moments: (&moments).into(),
        }];
        let adamw = AdamW::prepare(&kernels, &AdamWDescriptor { buffers: &buffers, ..Default::default() })?;
        let batch = Batch::new(&kernels, *tokens)?;
        let mut losses = Vec::new();
        for step in 1..=STEPS {
            // It is added to.
            gpu.queue.write_buffer(&y, 0, &vec![0; 4 * target.len()]);
            gpu.submit(|pass| forward.encode(pass, &batch))?;
            let errors = gpu.read_blocking(&y)?.into_iter().zip(target).map(|(y, target)| y - target);
            let errors: Vec<f32> = errors.collect();
            losses.push(errors.iter().map(|error| error * error).sum::<f32>() / errors.len() as f32);
            let scale = 2.0 / errors.len() as f32;
            let bytes: Vec<u8> = errors.iter().flat_map(|error| (scale * error).to_le_bytes()).collect();
            gpu.queue.write_buffer(&g, 0, &bytes);
            adamw.set_step(&gpu.queue, step, RATE as f32)?;
            gpu.submit(|pass| {
                backward.iter().try_for_each(|operation| operation.encode(pass, &batch))?;
                adamw.encode(pass);
                Ok(())
            })?;
        }
        Ok(losses)
    }
}

#[test]
fn the_loss_falls_as_the_librarys_own() {
    let task = Task::new();
    let burns = task.by_burn();
    let librarys = task.by_library().expect("the library trains");
    assert!(burns[STEPS as usize - 1] < 0.5 * burns[0], "{burns:?}");
    for (step, (burns, librarys)) in burns.iter().zip(&librarys).enumerate() {
        let bound = 1e-3 * librarys;
        assert!((burns - librarys).abs() <= bound, "step {step}: {burns}, and the library's {librarys}");
    }
}
