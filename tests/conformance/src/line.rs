//! The loss of a step in float64, along a random direction in everything that it has a gradient of. It uses no backward
//! code.

use hydralora::twin::{self, Approx, Extras};
use hydralora::{Adapter, Config, GateGradient, GateLossesOptions, GateRows, Weighting};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::case::{Case, LOSSES, Operation};
use crate::inputs::{noise, packed_noise};
use crate::job::Job;
use crate::op::{RANDOM, by_token, mask, unpack};

/// A point and a direction.
pub struct Line {
    config: Config,
    operation: Operation,
    x: Vec<Approx>,
    pub x_direction: Vec<Approx>,
    parameters: Adapter<Approx>,
    direction: Adapter<Approx>,
    /// The direction in the packed parameters.
    pub packed_direction: Vec<Approx>,
    /// Given weights or logits and a direction in them, a row for each token.
    gates: Option<[Vec<Approx>; 2]>,
    mask: Option<Vec<f32>>,
    /// The cotangent of y.
    pub g: Vec<Approx>,
    /// That of the weights or logits.
    of_gate: Option<(GateGradient, Vec<Approx>)>,
}

impl Line {
    /// The line through a job's numbers, in a direction that follows from the case's seed.
    pub fn new(case: &Case, job: &Job) -> Self {
        let config = case.shape.config(case.operation.router().expect("a step has a router"));
        let layout = config.layout().expect("a valid configuration");
        let rng = &mut StdRng::seed_from_u64(case.seed() ^ 0x5eed);
        let tokens = case.shape.tokens as usize;
        let given = |name: &str| job.tensors.iter().find(|tensor| tensor.name == name);
        let by_token =
            |rows: GateRows, numbers: &[f32]| by_token(&config, rows, tokens, &twin::exact(numbers));
        // x and g of masked tokens are NaN.
        let numbers = |name: &str| -> Vec<Approx> {
            let number = |a: Approx| if a.value.is_nan() { Approx::exact(0.0) } else { a };
            twin::exact(&job.tensor(name).data).into_iter().map(number).collect()
        };
        let x = numbers("x");
        let x_direction = twin::exact(&noise(rng, x.len() as u32));
        let packed_direction = twin::exact(&packed_noise(rng, &layout));
        let gates = given("gates").map(|gates| {
            let direction = noise(rng, gates.data.len() as u32);
            [&gates.data, &direction].map(|numbers| by_token(case.gates, numbers))
        });
        let of_gate =
            case.gate_gradient.map(|of| (of, by_token(of.rows(), &job.tensor("gate_gradient").data)));
        Self {
            config,
            operation: case.operation,
            x,
            x_direction,
            parameters: unpack(&config, &twin::exact(&job.tensor("parameters").data)),
            direction: unpack(&config, &packed_direction),
            packed_direction,
            gates,
            mask: mask(&job.tensors.iter().map(|t| (t.name.clone(), twin::exact(&t.data))).collect()),
            g: numbers("g"),
            of_gate,
        }
    }

    pub fn forward(&self, distance: f64) -> twin::Output {
        let moved = |from: &[Approx], along: &[Approx]| -> Vec<Approx> {
            from.iter().zip(along).map(|(a, b)| Approx::exact(a.value + distance * b.value)).collect()
        };
        let Self { config, parameters, direction, mask, .. } = self;
        let there = Adapter {
            a: moved(&parameters.a, &direction.a),
            router: moved(&parameters.router, &direction.router),
            router_bias: moved(&parameters.router_bias, &direction.router_bias),
            b: parameters.b.iter().zip(&direction.b).map(|(from, along)| moved(from, along)).collect(),
        };
        let gates = self.gates.as_ref().map(|[gates, along]| moved(gates, along));
        let (gates, mask) = (gates.as_deref(), mask.as_deref());
        let extras = Extras { gates, mask, random: Some(RANDOM), ..Extras::default() };
        twin::forward(config, &there, &moved(&self.x, &self.x_direction), &extras, None)
    }

    pub fn loss(&self, distance: f64) -> f64 {
        let output = self.forward(distance);
        let of_gate = match &self.of_gate {
            Some((GateGradient::Weights(_), gradient)) => dot(&self.weights(&output.w), gradient),
            Some((GateGradient::Logits(_), gradient)) => dot(&output.logits, gradient),
            Some((GateGradient::Losses, _)) | None => 0.0,
        };
        let of_losses =
            if let Operation::StepWithLosses(_) = self.operation { self.of_losses(&output.w) } else { 0.0 };
        dot(&output.y, &self.g) + of_gate + of_losses
    }

    /// The weights that count, from all that is saved of them.
    fn weights(&self, w: &[Approx]) -> Vec<Approx> {
        let [state, a_rows, experts] = [self.config.state_len(), self.config.a_rows(), self.config.experts];
        let chooses = matches!(self.config.weighting, Weighting::TopK { .. });
        let counted = |&weight: &Approx| {
            if chooses && weight.value < 0.0 { Approx::exact(0.0) } else { weight }
        };
        let rows = w.chunks((state - a_rows) as usize);
        rows.flat_map(|row| row[..experts as usize].iter().map(counted)).collect()
    }

    fn of_losses(&self, w: &[Approx]) -> f64 {
        let report = |w: &[Approx]| {
            let extras = Extras { mask: self.mask.as_deref(), ..Extras::default() };
            twin::gate_losses(&self.config, &GateLossesOptions::default(), w, &extras).report
        };
        let (here, there, experts) = (report(&self.forward(0.0).w), report(w), self.config.experts as usize);
        // The shares of loads are counts, which have no slope.
        let balance = f64::from(self.config.experts) * dot(&here[5..5 + experts], &there[5 + experts..]);
        let [of_balance, of_spread, of_z] = LOSSES.map(f64::from);
        of_balance * balance + of_spread * there[2].value + of_z * there[4].value
    }

    /// The elements of dstate that are gradients of given gates, and the direction there.
    pub fn gates_direction(&self) -> impl Iterator<Item = (usize, f64)> + '_ {
        let [a_rows, state, experts] = [self.config.a_rows(), self.config.state_len(), self.config.experts];
        let rows = self.gates.iter().flat_map(move |[_, along]| along.chunks(experts as usize).enumerate());
        rows.flat_map(move |(token, row)| {
            let first = token * state as usize + a_rows as usize;
            row.iter().enumerate().map(move |(expert, along)| (first + expert, along.value))
        })
    }
}

fn dot(a: &[Approx], b: &[Approx]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a.value * b.value).sum()
}
