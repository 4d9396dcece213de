//! The adapters of a model, in one stack.

use hydralora::device::Gpu;
use hydralora::{
    AdamWHyper, Adapter, BackwardInputOptions, BackwardParamsOptions, Bound, Dropout, Element,
    ForwardOptions, GateLossesOptions, Kernels, Operation, Stack, StackDescriptor, WriteMode, wgpu,
};

use crate::config::Config;
use crate::error::Error;

/// A matrix of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Projection {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl Projection {
    /// The module's name, as Hugging Face has it.
    pub fn name(self, block: u32) -> String {
        let name = match self {
            Self::Query => "self_attn.q_proj",
            Self::Key => "self_attn.k_proj",
            Self::Value => "self_attn.v_proj",
            Self::Output => "self_attn.o_proj",
            Self::Gate => "mlp.gate_proj",
            Self::Up => "mlp.up_proj",
            Self::Down => "mlp.down_proj",
        };
        format!("model.layers.{block}.{name}")
    }

    /// `d_in` and `d_out`.
    pub fn shape(self, config: &Config) -> [u32; 2] {
        let Config { width, hidden, .. } = *config;
        match self {
            Self::Query => [width, config.query_width()],
            Self::Output => [config.query_width(), width],
            Self::Key | Self::Value => [width, config.key_width()],
            Self::Gate | Self::Up => [width, hidden],
            Self::Down => [hidden, width],
        }
    }
}

pub struct Adapters {
    pub stack: Stack,
    /// The same without dropout, if there is any: what is evaluated and writes.
    evaluated: Option<Stack>,
    targets: Vec<Projection>,
}

const ADDING: WriteMode = WriteMode::Accumulate;

fn forward(save: bool) -> Operation {
    Operation::Forward(ForwardOptions { write: ADDING, save, ..Default::default() })
}

fn gates() -> Operation {
    Operation::GateLosses(GateLossesOptions::default())
}

fn backward() -> [Operation; 2] {
    let input = BackwardInputOptions { dx: Some((Element::F32, ADDING)), ..Default::default() };
    [Operation::BackwardInput(input), Operation::BackwardParams(BackwardParamsOptions::default())]
}

impl Adapters {
    /// Fresh adapters like `layer` on these projections of every block, with which the model computes the same as
    /// without. They can be trained in steps of up to `capacity` tokens.
    pub fn new(
        kernels: &Kernels,
        config: &Config,
        targets: &[Projection],
        layer: hydralora::Config,
        capacity: u32,
        seed: u64,
    ) -> Result<Self, Error> {
        let modules: Vec<_> = (0..config.blocks)
            .flat_map(|block| targets.iter().map(move |&target| (block, target)))
            .zip(0..)
            .map(|((block, target), stream)| {
                let [d_in, d_out] = target.shape(config);
                let dropout = layer.dropout.map(|dropout| Dropout { stream, ..dropout });
                (target.name(block), hydralora::Config { d_in, d_out, dropout, ..layer })
            })
            .collect();
        let named: Vec<_> = modules.iter().map(|(name, config)| (name.as_str(), *config)).collect();
        let [input, params] = backward();
        let hyper = AdamWHyper { weight_decay: 0.0, max_norm: Some(1.0), ..Default::default() };
        let mut operations = vec![forward(true), forward(false), input, params];
        if layer.experts > 1 {
            operations.push(gates());
        }
        let operations = &operations;
        let descriptor = StackDescriptor { modules: &named, capacity: capacity.into(), operations, hyper };
        let stack = Stack::new(kernels, &descriptor)?;
        for ((name, config), at) in named.iter().zip(0..) {
            stack.write(
                name,
                &Adapter::initialise(config, seed.wrapping_mul(named.len() as u64).wrapping_add(at))?,
            )?;
        }
        let evaluated = if layer.dropout.is_some_and(|dropout| dropout.probability > 0.0) {
            let plain = |&(name, config)| (name, hydralora::Config { dropout: None, ..config });
            let modules: Vec<_> = named.iter().map(plain).collect();
            let operations = &[forward(false)];
            let descriptor = StackDescriptor {
                modules: &modules,
                capacity: capacity.into(),
                operations,
                ..Default::default()
            };
            Some(Stack::new(kernels, &descriptor)?)
        } else {
            None
        };
        Ok(Self { stack, evaluated, targets: targets.to_vec() })
    }

    /// Gives every module experts that differ, so that no gradient is zero where a check needs it.
    pub fn write_random_heads(&self) -> Result<(), Error> {
        for (place, seed) in self.stack.pack().places().iter().zip(0..) {
            let adapter = Adapter::initialise_random_heads(place.config(), seed, 0.2)?;
            self.stack.write(place.name(), &adapter)?;
        }
        Ok(())
    }

    /// Makes what is evaluated and writes what has been trained.
    pub fn publish(&self, gpu: &Gpu) {
        let Some(evaluated) = &self.evaluated else { return };
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for (from, to) in self.stack.parameters().iter().zip(evaluated.parameters()) {
            encoder.copy_buffer_to_buffer(from, 0, to, 0, from.size());
        }
        gpu.queue.submit([encoder.finish()]);
    }

    /// What a projection's adapter adds to y, if it has one.
    pub fn forward(
        &self,
        block: u32,
        projection: Projection,
        x: &wgpu::Buffer,
        y: &wgpu::Buffer,
        training: bool,
    ) -> Result<Option<Bound>, Error> {
        if !self.targets.contains(&projection) {
            return Ok(None);
        }
        let tensors = [("x", x.into()), ("y", y.into())];
        let stack = self.evaluated.as_ref().filter(|_| !training).unwrap_or(&self.stack);
        Ok(Some(stack.bind(&projection.name(block), &forward(training), &tensors)?))
    }

    /// What a projection's adapter adds to dx, and its gradients.
    pub fn backward(
        &self,
        block: u32,
        projection: Projection,
        [x, g, dx]: [&wgpu::Buffer; 3],
    ) -> Result<Vec<Bound>, Error> {
        if !self.targets.contains(&projection) {
            return Ok(Vec::new());
        }
        let [input, params] = backward();
        let name = projection.name(block);
        Ok(vec![
            self.stack.bind(&name, &input, &[("g", g.into()), ("dx", dx.into())])?,
            self.stack.bind(&name, &params, &[("x", x.into()), ("g", g.into())])?,
        ])
    }

    /// What the routers of all modules do with the tokens of the last step of training: a dispatch for each module, and
    /// its report ([`Operation::GateLosses`]).
    pub fn reports(&self, gpu: &Gpu) -> Result<Vec<(Bound, wgpu::Buffer)>, Error> {
        let routed = self.stack.pack().places().iter().filter(|place| place.config().experts > 1);
        routed
            .map(|place| {
                let experts = place.config().experts as usize;
                let [report, gradient] =
                    [5 + 2 * experts, experts].map(|length| gpu.zeroed("report", length));
                let (report, gradient) = (report?, gradient?);
                let tensors = [("report", (&report).into()), ("gate_gradient", (&gradient).into())];
                Ok((self.stack.bind(place.name(), &gates(), &tensors)?, report))
            })
            .collect()
    }

    /// The number of trained numbers.
    pub fn parameters(&self) -> u64 {
        self.stack.pack().places().iter().map(|place| place.config().parameter_count()).sum()
    }
}
