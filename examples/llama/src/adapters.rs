//! The adapters of a model, in one stack.

use hydralora::device::Gpu;
use hydralora::{
    AdamWHyper, Adapter, BackwardInputOptions, BackwardParamsOptions, Bound, Dropout, Element,
    ForwardOptions, GateLossesOptions, Kernels, Memory, Operation, Stack, StackDescriptor, WriteMode, wgpu,
};

use crate::config::Config;
use crate::error::Error;

/// A matrix of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// Its short name.
    pub fn short(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Key => "key",
            Self::Value => "value",
            Self::Output => "output",
            Self::Gate => "gate",
            Self::Up => "up",
            Self::Down => "down",
        }
    }

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

/// What a model's adapters are to be.
#[derive(Debug, Clone, Copy)]
pub struct Design<'a> {
    /// The projections with adapters, in every block.
    pub targets: &'a [Projection],
    /// A layer like that of each.
    pub layer: hydralora::Config,
    /// The most tokens of a step.
    pub capacity: u32,
}

impl Design<'_> {
    /// The modules' names and layers.
    fn modules(&self, config: &Config) -> Vec<(String, hydralora::Config)> {
        let modules = (0..config.blocks).flat_map(|block| self.targets.iter().map(move |own| (block, *own)));
        modules
            .zip(0..)
            .map(|((block, target), stream)| {
                let [d_in, d_out] = target.shape(config);
                let dropout = self.layer.dropout.map(|dropout| Dropout { stream, ..dropout });
                (target.name(block), hydralora::Config { d_in, d_out, dropout, ..self.layer })
            })
            .collect()
    }

    /// What the adapters do.
    fn operations(&self) -> Vec<Operation> {
        let [input, params] = backward();
        let mut operations = vec![forward(true), forward(false), input, params];
        if self.layer.experts > 1 {
            operations.push(gates());
        }
        operations
    }

    /// Whether evaluating takes a stack of its own, without dropout.
    fn drops(&self) -> bool {
        self.layer.dropout.is_some_and(|dropout| dropout.probability > 0.0)
    }

    /// Bytes of the adapters, their gradients, the optimiser's moments, and what lies between forward and backward.
    pub fn bytes(&self, kernels: &Kernels, config: &Config) -> Result<u64, Error> {
        let mut memory: Option<Memory> = None;
        for target in self.targets {
            let [d_in, d_out] = target.shape(config);
            let layer = hydralora::Config { d_in, d_out, ..self.layer };
            let own = Memory::new(&layer, self.capacity, &self.operations(), kernels.planner())?;
            memory = Some(memory.map_or(own, |all| Memory {
                parameters: all.parameters + own.parameters,
                gradients: all.gradients + own.gradients,
                moments: all.moments + own.moments,
                saved: all.saved + own.saved,
                // Modules share them.
                dstate: all.dstate.max(own.dstate),
                scratch: all.scratch.max(own.scratch),
                optimiser: 0,
            }));
        }
        let Some(all) = memory else { return Ok(0) };
        let parameters = all.parameters * if self.drops() { 2 } else { 1 };
        let each = parameters + all.gradients + all.moments + all.saved;
        Ok((each.saturating_mul(config.blocks.into())).saturating_add(all.dstate + all.scratch))
    }
}

/// The adapters of a model.
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
    /// Fresh adapters, with which the model computes the same as without.
    pub fn new(kernels: &Kernels, config: &Config, design: &Design<'_>, seed: u64) -> Result<Self, Error> {
        let modules = design.modules(config);
        let named: Vec<_> = modules.iter().map(|(name, config)| (name.as_str(), *config)).collect();
        let capacity = design.capacity.into();
        let stack = Stack::new(
            kernels,
            &StackDescriptor {
                modules: &named,
                capacity,
                operations: &design.operations(),
                hyper: AdamWHyper { weight_decay: 0.0, max_norm: Some(1.0), ..Default::default() },
            },
        )?;
        for ((name, config), at) in named.iter().zip(0..) {
            let seed = seed.wrapping_mul(named.len() as u64).wrapping_add(at);
            stack.write(name, &Adapter::initialise(config, seed)?)?;
        }
        let evaluated = if design.drops() {
            let plain = |&(name, config)| (name, hydralora::Config { dropout: None, ..config });
            let modules: Vec<_> = named.iter().map(plain).collect();
            let operations = &[forward(false)];
            let descriptor =
                StackDescriptor { modules: &modules, capacity, operations, ..Default::default() };
            Some(Stack::new(kernels, &descriptor)?)
        } else {
            None
        };
        Ok(Self { stack, evaluated, targets: design.targets.to_vec() })
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

    /// What the routers of all modules do with the tokens of the last step of training.
    pub fn reports(&self, gpu: &Gpu) -> Result<Vec<Report>, Error> {
        let routed = self.stack.pack().places().iter().filter(|place| place.config().experts > 1);
        routed
            .map(|place| {
                let experts = place.config().experts as usize;
                let buffer = gpu.zeroed("report", 5 + 2 * experts)?;
                let gradient = gpu.zeroed("report's gradient", experts)?;
                let tensors = [("report", (&buffer).into()), ("gate_gradient", (&gradient).into())];
                let bound = self.stack.bind(place.name(), &gates(), &tensors)?;
                Ok(Report { module: place.name().to_owned(), bound, buffer })
            })
            .collect()
    }

    /// The number of trained numbers.
    pub fn parameters(&self) -> u64 {
        self.stack.pack().places().iter().map(|place| place.config().parameter_count()).sum()
    }
}

/// What a module's router does with the tokens of a step: the dispatch that sums it up ([`Operation::GateLosses`]), and where.
pub struct Report {
    pub module: String,
    pub bound: Bound,
    buffer: wgpu::Buffer,
}

impl Report {
    /// The mean weight of each expert.
    pub async fn weights(&self, gpu: &Gpu) -> Result<Vec<f32>, Error> {
        let report = gpu.read(&self.buffer).await?;
        Ok(report[5 + (report.len() - 5) / 2..].to_vec())
    }
}

/// The mean weights that a module's router gives its experts.
pub struct Routing {
    pub module: String,
    pub weights: Vec<f32>,
}
