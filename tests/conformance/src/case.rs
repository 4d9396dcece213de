//! A case: what is computed, on which shape, with which options and which numbers. Every mode of the
//! suite (correctness, gradients, determinism, isolation, speed, support) runs off the same case.

use std::fmt::{self, Display};

use hydralora::{
    AdamWHyper, BackwardInputOptions, BackwardParamsOptions, Choice, Config, Dropout, DropoutOf, Element,
    ForwardOptions, FusedChoice, GateGradient, GateGradientsOptions, GateLossesOptions, GateRows, GroupHyper,
    Layout, LinearChoice, LinearDirection, LinearOptions, LinearWay, OuterChoice, Router, Sharing, Weighting,
    WriteMode,
};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::inputs::{Inputs, difficult_gradients, noise, packed_noise};
use crate::job::{Job, Placement, Tensor};
use crate::op::{AdamWStep, Elements, LayerOp, Op, of_buffer};

/// The operation of a case, with what only it can choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// y alone.
    Inference(Router),
    /// y, and `[h, w]` for backward.
    Forward(Router),
    /// dx and `[dh, dl]` from given `[h, w]`.
    BackwardInput(Router),
    /// `[dh, dl]` alone: the first layer of a model.
    BackwardState(Router),
    /// The gradients of all parameters from given `[h, w]` and `[dh, dl]`.
    BackwardParams(Router),
    /// Forward and both backwards, each fed by the one before.
    Step(Router),
    /// The gradients of weights or logits that tokens share, from given `[dh, dl]`.
    GateGradients(Router),
    /// The losses of a router from given `[h, w]`.
    GateLosses(Router),
    /// Forward, the losses of the router, and both backwards with their gradient.
    StepWithLosses(Router),
    /// The frozen layer, either way.
    Linear { direction: LinearDirection, bias: bool },
    /// Several steps of the optimiser.
    AdamW { clip: bool },
    /// The same over three buffers, whose gradients have one norm.
    AdamWBuffers,
    /// The same with other constants for each group of parameters, and scaled gradients.
    AdamWGroups { clip: bool },
    /// Steps of the optimiser, clipping gradients whose norm is none or hard to compute.
    AdamWNorms,
}

/// The shape of a case. `AdamW` has as many elements as the adapter's packed layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub tokens: u32,
    pub d_in: u32,
    pub d_out: u32,
    pub rank: u32,
    pub experts: u32,
    /// Whether experts share A.
    pub a: Sharing,
    /// How logits become weights.
    pub weighting: Weighting,
    /// Whether the router has a bias.
    pub router_bias: bool,
    /// Of the temperature, percent.
    pub temperature: u32,
    /// Whether the logsumexp of the logits is saved, for the z-loss.
    pub logsumexp: bool,
    /// The probability of dropout, percent, and what it drops.
    pub dropout: Option<(u32, DropoutOf)>,
}

/// What the planner is told of the device, or to choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planning {
    /// The truth.
    Device,
    /// That it is a wide GPU: slices, splits and large workgroups also on devices that would have none.
    Wide,
    /// That it is software: lanes hold coefficients where there are subgroups, and kinds of blocks are apart.
    Software,
    /// That a grid has at most 8 workgroups in a dimension: folded grids without millions of tokens.
    Narrow,
    /// That it is a wide GPU whose dispatches may do little: several where one would do.
    Divided,
    /// Each operation as the candidate with this number, counted around.
    Candidate(u32),
    /// The fused kernels and `backward_params` exactly so, in narrow grids, and without subgroup operations,
    /// with which a fused choice means something else.
    Chosen(Option<FusedChoice>, Option<OuterChoice>),
    /// The frozen layer exactly so.
    Linear(LinearChoice),
    /// The fused kernels exactly so, with subgroup operations. Devices without them plan by themselves.
    Shuffled(FusedChoice),
}

impl Planning {
    /// What a tuning table is to hold for an operation with these choices, if anything.
    pub fn choose(self, choices: &[Choice]) -> Option<Choice> {
        match self {
            Self::Device | Self::Wide | Self::Software | Self::Narrow | Self::Divided => None,
            Self::Candidate(number) => Some(choices[number as usize % choices.len()]),
            Self::Shuffled(choice) => matches!(choices[0], Choice::Fused(_)).then_some(Choice::Fused(choice)),
            Self::Chosen(fused, outer) => match choices[0] {
                Choice::Fused(_) => fused.map(Choice::Fused),
                Choice::Outer(_) => outer.map(Choice::Outer),
                Choice::Linear(_) | Choice::Only => None,
            },
            Self::Linear(choice) => matches!(choices[0], Choice::Linear(_)).then_some(Choice::Linear(choice)),
        }
    }
}

/// One case.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    pub operation: Operation,
    pub shape: Shape,
    pub write: WriteMode,
    pub inputs: Inputs,
    pub elements: Elements,
    pub placement: Placement,
    pub planning: Planning,
    /// For how many tokens more it is prepared, and its tensors are large.
    pub room: u32,
    /// Elements between one row and the next of x, y, g and dx: a multiple of four more than whole groups take.
    pub gap: u32,
    /// Which tokens share a row of given weights or logits.
    pub gates: GateRows,
    /// A gradient that is added to that of the gate.
    pub gate_gradient: Option<GateGradient>,
    /// Whether some tokens take no adapter. Their numbers are NaN.
    pub mask: bool,
    /// Whether it needs more than WebGPU's default limits, so that a device may refuse it.
    pub beyond_defaults: bool,
    /// Seed of the numbers, where it does not come from the name.
    pub seed: Option<u64>,
}

/// The coefficients of balance, of spread, and of the z-loss where the layer saves the logsumexp.
pub const LOSSES: [f32; 3] = [0.7, 0.3, 0.4];

/// Optimiser steps in a case of `AdamW`.
const ADAMW_STEPS: u32 = 50;

impl Shape {
    pub const fn new(tokens: u32, [d_in, d_out]: [u32; 2], [rank, experts]: [u32; 2]) -> Self {
        let (a, weighting) = (Sharing::Shared, Weighting::Softmax);
        let (router_bias, temperature, logsumexp, dropout) = (false, 100, false, None);
        Self {
            tokens,
            d_in,
            d_out,
            rank,
            experts,
            a,
            weighting,
            router_bias,
            temperature,
            logsumexp,
            dropout,
        }
    }

    /// The same with other weights.
    pub const fn weighted(self, weighting: Weighting) -> Self {
        Self { weighting, ..self }
    }

    /// The same with a bias of the router.
    pub const fn biased(self) -> Self {
        Self { router_bias: true, ..self }
    }

    /// The same with the logsumexp saved.
    pub const fn with_logsumexp(self) -> Self {
        Self { logsumexp: true, ..self }
    }

    /// The same with dropout, in percent.
    pub const fn dropping(self, percent: u32, of: DropoutOf) -> Self {
        Self { dropout: Some((percent, of)), ..self }
    }

    /// The same with a temperature, in percent.
    pub const fn at(self, temperature: u32) -> Self {
        Self { temperature, ..self }
    }

    /// The same with an A for each expert.
    pub const fn separate(self) -> Self {
        Self { a: Sharing::Separate, ..self }
    }

    /// The same with the weights of `k` experts alone.
    pub const fn top(self, k: u32, renormalise: bool) -> Self {
        Self { weighting: Weighting::TopK { k, renormalise }, ..self }
    }

    /// The layer's configuration; the scaling is no power of two.
    pub fn config(&self, router: Router) -> Config {
        let Self { d_in, d_out, rank, experts, a, weighting, router_bias, temperature, logsumexp, .. } =
            *self;
        let temperature = temperature as f32 / 100.0;
        let stream = 5;
        let dropout = |(percent, of)| Dropout { of, stream, ..Dropout::new(percent as f32 / 100.0) };
        let dropout = self.dropout.map(dropout);
        let config = Config { d_in, d_out, rank, experts, scaling: 1.7, dropout, ..Config::DEFAULT };
        Config { router, a, weighting, router_bias, temperature, logsumexp, ..config }
    }
}

impl Operation {
    pub fn router(self) -> Option<Router> {
        match self {
            Self::Inference(router)
            | Self::Forward(router)
            | Self::BackwardInput(router)
            | Self::BackwardState(router)
            | Self::BackwardParams(router)
            | Self::Step(router)
            | Self::GateGradients(router)
            | Self::GateLosses(router)
            | Self::StepWithLosses(router) => Some(router),
            Self::Linear { .. }
            | Self::AdamW { .. }
            | Self::AdamWBuffers
            | Self::AdamWGroups { .. }
            | Self::AdamWNorms => None,
        }
    }

    /// The kernel's name, for tables.
    pub fn kernel(self) -> &'static str {
        match self {
            Self::Inference(_) | Self::Forward(_) => "forward",
            Self::BackwardInput(_) | Self::BackwardState(_) => "backward_input",
            Self::BackwardParams(_) => "backward_params",
            Self::Step(_) | Self::StepWithLosses(_) => "step",
            Self::GateGradients(_) => "gate_gradients",
            Self::GateLosses(_) => "gate_losses",
            Self::Linear { .. } => "linear",
            Self::AdamW { .. } | Self::AdamWBuffers | Self::AdamWGroups { .. } | Self::AdamWNorms => "adamw",
        }
    }
}

/// A number that a name decides, by FNV-1a.
pub fn hash(name: &str) -> u64 {
    name.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

impl Case {
    /// A case with random numbers in buffers of their own, overwriting its results.
    pub fn new(operation: Operation, shape: Shape) -> Self {
        Self {
            operation,
            shape,
            write: WriteMode::Overwrite,
            inputs: Inputs::Noise,
            elements: Elements::F32,
            placement: Placement::Separate,
            planning: Planning::Device,
            room: 0,
            gap: 0,
            gates: GateRows::Token,
            gate_gradient: None,
            mask: false,
            beyond_defaults: false,
            seed: None,
        }
    }

    /// Whether the layer has an option of its gate, of A, of dropout or of a mask, or is not a layer but its losses.
    pub fn has_options(&self) -> bool {
        let given = matches!(self.operation.router(), Some(Router::GivenWeights | Router::GivenLogits));
        let losses = matches!(self.operation, Operation::GateLosses(_) | Operation::StepWithLosses(_));
        let Shape { tokens, d_in, d_out, rank, experts, .. } = self.shape;
        let plain = Shape::new(tokens, [d_in, d_out], [rank, experts]);
        self.shape != plain || given || losses || self.mask || self.gate_gradient.is_some()
    }

    pub fn accumulating(self) -> Self {
        Self { write: WriteMode::Accumulate, ..self }
    }

    pub fn with_inputs(self, inputs: Inputs) -> Self {
        Self { inputs, ..self }
    }

    /// Activations in half precision, and parameters where the operation takes them so.
    pub fn in_half(self, element: Element) -> Self {
        let parameters = match self.operation {
            Operation::Inference(_) | Operation::Linear { .. } => element,
            _ => Element::F32,
        };
        self.stored_as(Elements { sources: element, parameters, targets: element })
    }

    pub fn stored_as(self, elements: Elements) -> Self {
        Self { elements, ..self }
    }

    pub fn planned_for(self, planning: Planning) -> Self {
        Self { planning, ..self }
    }

    /// The seed that all numbers come from: the same name, the same numbers.
    pub fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| hash(&self.to_string()))
    }

    /// What is computed, on which numbers.
    pub fn job(&self) -> Job {
        let rng = &mut StdRng::seed_from_u64(self.seed());
        match self.operation {
            Operation::Linear { direction, bias } => self.linear(direction, bias, rng),
            Operation::AdamW { clip } => {
                let len = self.adamw_elements();
                let gradients = (0..ADAMW_STEPS).map(|_| self.inputs.activations(rng, 1, len)).collect();
                Self::adamw(clip.then_some(1.0), &[len], gradients, rng, None)
            }
            Operation::AdamWGroups { clip } => {
                let len = self.adamw_layout().len() as u32;
                let gradients = (0..ADAMW_STEPS).map(|_| self.inputs.activations(rng, 1, 2 * len)).collect();
                Self::adamw(clip.then_some(0.02), &[len, len], gradients, rng, Some(self.adamw_layout()))
            }
            Operation::AdamWBuffers => {
                let lens = [self.adamw_elements(), 4, self.adamw_elements() + 8];
                let all = lens.iter().sum();
                let gradients = (0..ADAMW_STEPS).map(|_| self.inputs.activations(rng, 1, all)).collect();
                Self::adamw(Some(1.0), &lens, gradients, rng, None)
            }
            // Over the largest norms this is too small for f32.
            Operation::AdamWNorms => {
                let len = self.adamw_elements();
                Self::adamw(Some(1e-3), &[len], difficult_gradients(rng, len), rng, None)
            }
            Operation::Inference(router)
            | Operation::Forward(router)
            | Operation::BackwardInput(router)
            | Operation::BackwardState(router)
            | Operation::BackwardParams(router)
            | Operation::Step(router)
            | Operation::GateGradients(router)
            | Operation::GateLosses(router)
            | Operation::StepWithLosses(router) => self.adapter(router, rng),
        }
    }

    fn linear(&self, direction: LinearDirection, bias: bool, rng: &mut StdRng) -> Job {
        let Shape { tokens, d_in, d_out, .. } = self.shape;
        let Self { write, inputs, elements, .. } = *self;
        let [source, target] = direction.names();
        let (source_width, target_width) = match direction {
            LinearDirection::Forward => (d_in, d_out),
            LinearDirection::Backward => (d_out, d_in),
        };
        let numbers = inputs.activations(rng, tokens, source_width);
        let before = noise(rng, tokens * target_width);
        let mut tensors = vec![
            Tensor::input(source, source_width, numbers).of(elements.sources),
            Tensor::input("weight", d_in, noise(rng, d_out * d_in)).of(elements.parameters),
            Tensor::output(target, target_width, before, write).of(elements.targets),
        ];
        if bias {
            tensors.push(Tensor::input("bias", d_out, noise(rng, d_out)));
        }
        let Elements { sources: source, parameters: weight, targets: target } = elements;
        let (source_stride, target_stride) = (self.stride(source_width), self.stride(target_width));
        let options = LinearOptions {
            direction,
            bias,
            write,
            source,
            source_stride,
            weight,
            target,
            target_stride,
            ..Default::default()
        };
        let config = Config { d_in, d_out, ..Config::default() };
        self.on_tokens(tensors, config, vec![hydralora::Operation::Linear(options)])
    }

    fn adamw_layout(&self) -> Layout {
        self.shape.config(Router::Latent).layout().expect("a valid configuration")
    }

    fn adamw_elements(&self) -> u32 {
        self.shape.config(Router::Input).layout().expect("a valid configuration").len() as u32
    }

    /// A step for each of `gradients`, over buffers of so many elements. With a layout, they hold adapters whose
    /// groups differ, and gradients are scaled.
    fn adamw(
        max_norm: Option<f32>,
        lens: &[u32],
        gradients: Vec<Vec<f32>>,
        rng: &mut StdRng,
        layout: Option<Layout>,
    ) -> Job {
        let (weight_decay, beta1) = (0.05, 0.8);
        let mut hyper = AdamWHyper { max_norm, weight_decay, beta1, ..AdamWHyper::default() };
        if layout.is_some() {
            hyper.groups.b.rate = 16.0;
            hyper.groups.router = GroupHyper { rate: 0.25, weight_decay: Some(0.3) };
        }
        let gradient_scale = if layout.is_some() { 1.0 / 96.0 } else { 1.0 };
        let mut tensors = Vec::new();
        for (at, &len) in lens.iter().enumerate() {
            let moments = vec![0.0; 2 * len as usize];
            tensors.push(Tensor::update(&of_buffer("parameters", at), len, noise(rng, len)));
            tensors.push(Tensor::update(&of_buffer("moments", at), len, moments));
        }
        let mut ops: Vec<Box<dyn Op>> = Vec::new();
        for (step, mut gradients) in (1..).zip(gradients) {
            let elements = lens.iter().map(|&len| len as usize).collect();
            let learning_rate = 0.01 / step as f32;
            let op = AdamWStep { elements, hyper, step, learning_rate, gradient_scale, layout };
            for (at, &len) in lens.iter().enumerate() {
                let rest = gradients.split_off(len as usize);
                tensors.push(Tensor::input(op.gradients(at), len, std::mem::replace(&mut gradients, rest)));
            }
            if max_norm.is_some() {
                // As if as many steps had been skipped before.
                tensors.push(Tensor::update(&op.status(), 2, vec![-1.0, f32::from_bits(step)]));
            }
            ops.push(Box::new(op));
        }
        Job::new(tensors, ops)
    }

    /// From one row of so many elements to the next, where there is a gap.
    fn stride(&self, width: u32) -> Option<u32> {
        (self.gap > 0).then(|| width.next_multiple_of(4) + self.gap)
    }

    /// Operations on tokens, and what they bind: with room for more tokens, where there is to be.
    fn on_tokens(
        &self,
        mut tensors: Vec<Tensor>,
        config: Config,
        operations: Vec<hydralora::Operation>,
    ) -> Job {
        let Self { shape: Shape { tokens, .. }, room, .. } = *self;
        for tensor in &mut tensors {
            if ["x", "y", "g", "dx"].contains(&tensor.name.as_str()) {
                tensor.gap =
                    self.stride(tensor.width as u32).map_or(0, |stride| stride as usize - tensor.width);
            }
            if tensor.name == "report" {
                continue;
            }
            let rows = match tensor.name.as_str() {
                "gate_gradient" if tensor.written => GateRows::Batch,
                "gates" | "gate_gradients" => self.gates,
                "gate_gradient" => self.gate_gradient.map_or(GateRows::Token, GateGradient::rows),
                _ => GateRows::Token,
            };
            if !["parameters", "gradients", "weight", "bias"].contains(&tensor.name.as_str()) {
                let rows = rows.count(tokens + room) - rows.count(tokens);
                tensor.spare = rows as usize * (tensor.width + tensor.gap);
            }
        }
        let op =
            |operation| Box::new(LayerOp { room, ..LayerOp::new(operation, config, tokens) }) as Box<dyn Op>;
        Job::new(tensors, operations.into_iter().map(op).collect())
    }

    fn adapter(&self, router: Router, rng: &mut StdRng) -> Job {
        let Shape { tokens, d_in, d_out, .. } = self.shape;
        let Self { write, inputs, elements, .. } = *self;
        let config = self.shape.config(router);
        let layout = config.layout().expect("a valid configuration");
        let (len, state) = (layout.len() as u32, config.state_len());
        let x = Tensor::input("x", d_in, inputs.activations(rng, tokens, d_in)).of(elements.sources);
        let g = Tensor::input("g", d_out, inputs.activations(rng, tokens, d_out)).of(elements.sources);
        let parameters =
            Tensor::input("parameters", len, inputs.parameters(rng, &config)).of(elements.parameters);
        let y = Tensor::output("y", d_out, noise(rng, tokens * d_out), write).of(elements.targets);
        let dx = Tensor::output("dx", d_in, noise(rng, tokens * d_in), write).of(elements.targets);
        let saved = Tensor::input("saved", state, inputs.state(rng, tokens, &config));
        let dstate = Tensor::input("dstate", state, noise(rng, tokens * state));
        let gradients = Tensor::output("gradients", len, packed_noise(rng, &layout), write);
        let result = |name: &str| Tensor::poisoned(name, state, (tokens * state) as usize);

        let Elements { sources, parameters: stored, targets } = elements;
        let forward = |save| {
            let (x_stride, y_stride) = (self.stride(d_in), self.stride(d_out));
            let (x, parameters, y) = (sources, stored, targets);
            let (gates, mask) = (self.gates, self.mask);
            hydralora::Operation::Forward(ForwardOptions {
                write,
                save,
                x,
                x_stride,
                parameters,
                y,
                y_stride,
                gates,
                mask,
                ..Default::default()
            })
        };
        let backward_input = |dx: bool| {
            let (g_stride, dx_stride) = (self.stride(d_out), self.stride(d_in));
            let dx = dx.then_some((targets, write));
            let gate_gradient = match self.operation {
                Operation::StepWithLosses(_) => Some(GateGradient::Losses),
                _ => self.gate_gradient,
            };
            let (g, mask) = (sources, self.mask);
            let options = BackwardInputOptions { g, g_stride, dx, dx_stride, gate_gradient, mask };
            hydralora::Operation::BackwardInput(options)
        };
        let backward_params = hydralora::Operation::BackwardParams(BackwardParamsOptions {
            write,
            x: sources,
            x_stride: self.stride(d_in),
            g: sources,
            g_stride: self.stride(d_out),
            mask: self.mask,
        });
        let losses = hydralora::Operation::GateLosses(GateLossesOptions {
            balance: LOSSES[0],
            spread: LOSSES[1],
            z: if config.logsumexp { LOSSES[2] } else { 0.0 },
            mask: self.mask,
        });
        let (mut tensors, operations) = match self.operation {
            Operation::Inference(_) => (vec![x, parameters, y], vec![forward(false)]),
            Operation::Forward(_) => (vec![x, parameters, y, result("saved")], vec![forward(true)]),
            Operation::BackwardInput(_) => {
                (vec![g, parameters, saved, result("dstate"), dx], vec![backward_input(true)])
            }
            Operation::BackwardState(_) => {
                (vec![g, parameters, saved, result("dstate")], vec![backward_input(false)])
            }
            Operation::BackwardParams(_) => (vec![x, g, saved, dstate, gradients], vec![backward_params]),
            Operation::GateGradients(_) => {
                let experts = config.experts;
                let rows = self.gates.count(tokens);
                let sums = Tensor::poisoned("gate_gradients", experts, (rows * experts) as usize);
                let options = GateGradientsOptions { rows: self.gates };
                (vec![dstate, sums], vec![hydralora::Operation::GateGradients(options)])
            }
            Operation::GateLosses(_) => (vec![saved], vec![losses]),
            Operation::StepWithLosses(_) => (
                vec![x, g, parameters, y, result("saved"), dx, result("dstate"), gradients],
                vec![forward(true), losses, backward_input(true), backward_params],
            ),
            _ => (
                vec![x, g, parameters, y, result("saved"), dx, result("dstate"), gradients],
                vec![forward(true), backward_input(true), backward_params],
            ),
        };
        self.add_tensors_of_options(&mut tensors, router, rng);
        self.on_tokens(tensors, config, operations)
    }

    /// Adds the tensors that options bind, as far as the operation has them.
    fn add_tensors_of_options(&self, tensors: &mut Vec<Tensor>, router: Router, rng: &mut StdRng) {
        let Shape { tokens, experts, logsumexp, .. } = self.shape;
        let of_losses = experts + u32::from(logsumexp);
        let has = |tensors: &[Tensor], name| tensors.iter().any(|tensor| tensor.name == name);
        // What belongs to one token alone is poisoned with it.
        let spoil = |numbers: &mut [f32], rows: GateRows| {
            if let (GateRows::Token, Some(poison), Some(token)) =
                (rows, self.inputs.poison(), self.inputs.poisoned_token(tokens))
            {
                numbers[(token * experts) as usize] = poison;
            }
        };
        if let Router::GivenWeights | Router::GivenLogits = router
            && has(tensors, "y")
        {
            let mut gates = noise(rng, self.gates.count(tokens) * experts);
            // Some weights are zero, and many negative.
            gates.iter_mut().step_by(3).for_each(|gate| *gate = 0.0);
            spoil(&mut gates, self.gates);
            // Where weights add up to next to nothing, their spread is a quotient of that.
            if let Operation::StepWithLosses(_) = self.operation {
                for gate in &mut gates {
                    *gate = gate.abs();
                }
            }
            tensors.push(Tensor::input("gates", experts, gates));
        }
        if let Some(added) = self.gate_gradient
            && has(tensors, "dstate")
        {
            let width = if added == GateGradient::Losses { of_losses } else { experts };
            let mut gradient = noise(rng, added.rows().count(tokens) * width);
            spoil(&mut gradient, added.rows());
            tensors.push(Tensor::input("gate_gradient", width, gradient));
        }
        if let Operation::GateLosses(_) | Operation::StepWithLosses(_) = self.operation {
            let report = 5 + 2 * experts;
            tensors.push(Tensor::poisoned("gate_gradient", of_losses, of_losses as usize));
            tensors.push(Tensor::poisoned("report", report, report as usize));
        }
        if self.mask {
            self.add_mask(tensors);
        }
    }

    /// Adds a mask, in which some tokens take no adapter. Their activations are NaN. Others count for no loss.
    fn add_mask(&self, tensors: &mut Vec<Tensor>) {
        // The first, one of a full tile of four, a whole one, and the last of several.
        let takes = |token: u32| !(token == 0 || token % 7 == 5 || (8..12).contains(&token));
        let number = |token: u32| match (takes(token), token % 3) {
            (false, _) => 0.0,
            (true, 1) => -1.0,
            (true, _) => 1.0,
        };
        let mask: Vec<f32> = (0..self.shape.tokens).map(number).collect();
        // What forward saved may be anything where it had no mask.
        let activations = tensors.iter_mut().filter(|tensor| match tensor.name.as_str() {
            "x" | "g" => true,
            "saved" => !tensor.written,
            _ => false,
        });
        for tensor in activations {
            let width = tensor.width;
            for (row, _) in tensor.data.chunks_mut(width).zip(&mask).filter(|(_, take)| **take == 0.0) {
                row.fill(f32::NAN);
            }
        }
        // Zeros with a minus lose it if anything is added to them.
        let added_to = tensors.iter_mut().filter(|tensor| ["y", "dx"].contains(&tensor.name.as_str()));
        for tensor in added_to.filter(|_| self.write == WriteMode::Accumulate) {
            let width = tensor.width;
            for (row, _) in tensor.data.chunks_mut(width).zip(&mask).filter(|(_, take)| **take == 0.0) {
                row.iter_mut().step_by(3).for_each(|number| *number = -0.0);
            }
        }
        tensors.push(Tensor::input("mask", 1, mask));
    }
}

impl Case {
    fn write_options(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { a, weighting, router_bias, temperature, logsumexp, dropout, .. } = self.shape;
        if a == Sharing::Separate {
            f.write_str("/separate-a")?;
        }
        match weighting {
            Weighting::Softmax => {}
            Weighting::TopK { k, renormalise } => {
                write!(f, "/top-{k}{}", if renormalise { "-renormalised" } else { "" })?;
            }
            Weighting::Sigmoid => f.write_str("/sigmoid")?,
            Weighting::NormalisedSigmoid => f.write_str("/normalised-sigmoid")?,
        }
        if router_bias {
            f.write_str("/router-bias")?;
        }
        if temperature != 100 {
            write!(f, "/temperature{temperature}")?;
        }
        if logsumexp {
            f.write_str("/logsumexp")?;
        }
        match dropout {
            None => {}
            Some((percent, DropoutOf::Input)) => write!(f, "/dropout{percent}")?,
            Some((percent, DropoutOf::Latent)) => write!(f, "/dropout{percent}-of-h")?,
        }
        if self.mask {
            f.write_str("/mask")?;
        }
        match self.gates {
            GateRows::Token => {}
            GateRows::Sequence(tokens) => write!(f, "/gates-for-{tokens}")?,
            GateRows::Batch => f.write_str("/gates-for-all")?,
        }
        match self.gate_gradient {
            None => {}
            Some(GateGradient::Weights(rows)) => write!(f, "/added-to-weights-{rows:?}")?,
            Some(GateGradient::Logits(rows)) => write!(f, "/added-to-logits-{rows:?}")?,
            Some(GateGradient::Losses) => f.write_str("/added-losses")?,
        }
        Ok(())
    }
}

/// The case's name, which says everything about it that is not the default:
/// `forward/input-router/f32/T33_k101_d67_r7_N3`.
impl Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Shape { tokens, d_in, d_out, rank, experts, .. } = self.shape;
        let name = match self.operation {
            Operation::Inference(_) => "forward/inference",
            Operation::BackwardState(_) => "backward_input/no-dx",
            Operation::StepWithLosses(_) => "step/with-losses",
            Operation::Linear { direction: LinearDirection::Forward, bias: true } => "linear/bias",
            Operation::Linear { direction: LinearDirection::Forward, bias: false } => "linear/forward",
            Operation::Linear { direction: LinearDirection::Backward, .. } => "linear/backward",
            Operation::AdamW { clip: true } => "adamw/clip",
            Operation::AdamW { clip: false } => "adamw/no-clip",
            Operation::AdamWBuffers => "adamw/buffers",
            Operation::AdamWGroups { clip: true } => "adamw/groups/clip",
            Operation::AdamWGroups { clip: false } => "adamw/groups",
            Operation::AdamWNorms => "adamw/norms",
            operation => operation.kernel(),
        };
        f.write_str(name)?;
        match self.operation.router() {
            Some(Router::Input) => f.write_str("/input-router")?,
            Some(Router::Latent) => f.write_str("/latent-router")?,
            Some(Router::GivenWeights) => f.write_str("/given-weights")?,
            Some(Router::GivenLogits) => f.write_str("/given-logits")?,
            None => {}
        }
        let Elements { sources, parameters, targets } = self.elements;
        let elements = match self.elements {
            _ if sources == targets && [sources, Element::F32].contains(&parameters) => sources.to_string(),
            _ => format!("{sources}-{parameters}-{targets}"),
        };
        write!(f, "/{elements}/T{tokens}_k{d_in}_d{d_out}_r{rank}_N{experts}")?;
        self.write_options(f)?;
        if self.write == WriteMode::Accumulate {
            f.write_str("/accumulate")?;
        }
        if self.inputs != Inputs::Noise {
            write!(f, "/{}", self.inputs)?;
        }
        match self.placement {
            Placement::Separate => {}
            Placement::OneAllocation => f.write_str("/one-allocation")?,
            Placement::Pool => f.write_str("/pool")?,
        }
        if self.gap > 0 {
            write!(f, "/gap{}", self.gap)?;
        }
        if self.room > 0 {
            write!(f, "/room-for-{}-more", self.room)?;
        }
        match self.planning {
            Planning::Device => Ok(()),
            Planning::Wide => f.write_str("/wide"),
            Planning::Software => f.write_str("/software"),
            Planning::Narrow => f.write_str("/narrow"),
            Planning::Divided => f.write_str("/divided"),
            Planning::Shuffled(choice) => write_fused(f, choice),
            Planning::Candidate(number) => write!(f, "/candidate-{number}"),
            Planning::Chosen(fused, outer) => {
                if let Some(choice) = fused {
                    write_fused(f, choice)?;
                }
                if let Some(OuterChoice { threads, rows, splits, broadcast, separate }) = outer {
                    write!(f, "/threads{threads}_rows{rows}_splits{splits}")?;
                    f.write_str(if broadcast { "_broadcast" } else { "" })?;
                    f.write_str(if separate { "_separate" } else { "" })?;
                }
                Ok(())
            }
            Planning::Linear(LinearChoice { threads, thread_tokens, thread_quads, splits, way }) => {
                write!(f, "/threads{threads}_tokens{thread_tokens}_quads{thread_quads}_splits{splits}")?;
                match way {
                    LinearWay::Matrices { size } => write!(f, "_matrices{size}"),
                    LinearWay::Tiled { depth } => write!(f, "_depth{depth}"),
                    LinearWay::Direct { lanes, step, broadcast } => {
                        write!(f, "_lanes{lanes}_step{step}{}", if broadcast { "_broadcast" } else { "" })
                    }
                }
            }
        }
    }
}

fn write_fused(f: &mut fmt::Formatter<'_>, choice: FusedChoice) -> fmt::Result {
    let FusedChoice { threads, quads, columns, groups, expand_quads, .. } = choice;
    let FusedChoice { summed_columns, slices, shrink_splits, broadcast, .. } = choice;
    write!(f, "/threads{threads}_quads{quads}_columns{columns}_groups{groups}_expand{expand_quads}")?;
    write!(f, "_summed{summed_columns}_slices{slices}_shrink{shrink_splits}")?;
    f.write_str(if broadcast { "_broadcast" } else { "" })
}
