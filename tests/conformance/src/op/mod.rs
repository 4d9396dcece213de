//! The library's operations as the suite runs them: prepared on a device through the public API, recorded for
//! a device that is not wgpu's, and computed by their twins.

mod adamw;
mod backward_input;
mod backward_params;
mod forward;
mod gate_gradients;
mod gate_losses;
mod linear;

pub use adamw::{AdamWStep, of_buffer};

use std::pin::Pin;

use hydralora::device::Gpu;
use hydralora::twin::{Approx, Random};
use hydralora::{
    Adapter, Batch, Capacity, Config, Element, Error, GateRows, Kernels, Operation, Planner, Plans,
    Recording, Tensor, WriteMode, wgpu,
};

use crate::job::Values;

/// The element types of an operation's tensors. The state of training is always f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elements {
    /// x and g.
    pub sources: Element,
    /// The packed adapter, or W0.
    pub parameters: Element,
    /// y and dx.
    pub targets: Element,
}

impl Elements {
    pub const F32: Self = Self { sources: Element::F32, parameters: Element::F32, targets: Element::F32 };
}

/// Finds a job's tensor among a device's buffers.
pub type Lookup<'a> = dyn Fn(&str) -> Tensor<'a> + 'a;

/// An operation, ready to be encoded.
pub type Prepared = Box<dyn Fn(&mut wgpu::ComputePass<'_>) -> Result<(), Error>>;

/// What an operation will be, once its shaders are compiled.
pub type Preparing<'a> = Pin<Box<dyn Future<Output = Result<Prepared, Error>> + 'a>>;

/// One operation of a job.
pub trait Op: Send + Sync {
    /// Prepares the operation through the library's API: its calls for browsers there, and those that are ready at
    /// once natively.
    fn prepare<'a>(&'a self, gpu: &'a Gpu, kernels: &'a Kernels, tensor: &'a Lookup<'a>) -> Preparing<'a>;

    /// Plans the operation, and returns it as data.
    fn plan(&self, planner: &Planner) -> Result<Vec<Planned>, Error>;

    /// The operation's key in a tuning table: layer, tokens and operation. None if there is nothing to
    /// choose.
    fn tuned(&self) -> Option<(Config, u32, Operation)> {
        None
    }

    /// Reads the operation's inputs from `values`, and writes its results there.
    fn twin(&self, values: &mut Values);
}

/// A recording, and how to run it with a job's tensors.
#[derive(Debug)]
pub struct Planned {
    pub recording: Recording,
    /// The job's names for the recording's tensors, in the recording's order.
    pub names: Vec<String>,
    /// The number of tokens to run it for.
    pub tokens: u32,
    /// The contents of the uniform in group 1.
    pub varying: Vec<u8>,
}

/// What dropout drops.
pub const RANDOM: Random = Random { seed: 0x0123_4567_89ab_cdef, step: 41 };

/// An operation on the tokens of a layer.
#[derive(Debug, Clone, Copy)]
pub struct LayerOp {
    pub operation: Operation,
    pub config: Config,
    pub tokens: u32,
    /// The capacity beyond `tokens` that it is prepared for.
    pub room: u32,
}

impl LayerOp {
    pub fn new(operation: Operation, config: Config, tokens: u32) -> Self {
        Self { operation, config, tokens, room: 0 }
    }

    /// Without room there is exactly one plan: the one under test.
    fn capacity(&self) -> Capacity {
        let plans = if self.room == 0 { Plans::One } else { Plans::Several };
        Capacity { tokens: self.tokens + self.room, plans }
    }
}

impl Op for LayerOp {
    fn prepare<'a>(&'a self, gpu: &'a Gpu, kernels: &'a Kernels, tensor: &'a Lookup<'a>) -> Preparing<'a> {
        Box::pin(async move {
            let Self { operation, config, .. } = self;
            let prepared = if cfg!(target_arch = "wasm32") {
                kernels.prepare_async(operation, config, self.capacity()).await?
            } else {
                kernels.prepare(operation, config, self.capacity())?
            };
            // All recordings of an operation take the same tensors.
            let operands = prepared.recordings().last().into_iter().flat_map(|recording| &recording.tensors);
            let tensors: Vec<_> = operands.map(|operand| (operand.name, tensor(operand.name))).collect();
            let bound = prepared.bind(&tensors)?;
            let mut batch = Batch::new(kernels, self.tokens)?;
            batch.set_random(&gpu.queue, RANDOM.seed, RANDOM.step);
            let encode: Prepared = Box::new(move |pass| bound.encode(pass, &batch));
            Ok(encode)
        })
    }

    fn plan(&self, planner: &Planner) -> Result<Vec<Planned>, Error> {
        let recording = planner.plan(&self.operation, &self.config, self.capacity().tokens)?;
        let names = recording.tensors.iter().map(|operand| operand.name.to_owned()).collect();
        let Random { seed, step } = RANDOM;
        let varying = [self.tokens, seed as u32, (seed >> 32) as u32, step];
        let varying = bytemuck::bytes_of(&varying).to_vec();
        Ok(vec![Planned { recording, names, tokens: self.tokens, varying }])
    }

    fn tuned(&self) -> Option<(Config, u32, Operation)> {
        Some((self.config, self.capacity().tokens, self.operation))
    }

    fn twin(&self, values: &mut Values) {
        match &self.operation {
            Operation::Forward(options) => forward::twin(&self.config, options, values),
            Operation::BackwardInput(options) => backward_input::twin(&self.config, options, values),
            Operation::BackwardParams(options) => backward_params::twin(&self.config, options, values),
            Operation::Linear(options) => linear::twin(&self.config, options, values),
            Operation::GateGradients(options) => gate_gradients::twin(&self.config, options, values),
            Operation::GateLosses(options) => gate_losses::twin(&self.config, options, values),
        }
    }
}

/// A tensor's values.
fn read<'a>(values: &'a Values, name: &str) -> &'a [Approx] {
    values.get(name).unwrap_or_else(|| panic!("the twin needs {name}"))
}

/// The contents of a written tensor before the operation, if the operation adds to it.
fn before<'a>(values: &'a Values, name: &str, write: WriteMode) -> Option<&'a [Approx]> {
    (write == WriteMode::Accumulate).then(|| read(values, name))
}

/// Rows `[first, second]`, the layout of per-token state; with one expert, only `first`.
fn interleave(config: &Config, first: &[Approx], second: &[Approx]) -> Vec<Approx> {
    if config.state_len() == config.a_rows() {
        return first.to_vec();
    }
    let (rank, state) = (config.a_rows() as usize, config.state_len() as usize);
    first.chunks(rank).zip(second.chunks(state - rank)).flat_map(|(a, b)| [a, b].concat()).collect()
}

/// The two parts of rows `[first, second]`. With one expert, every element of the second part is `only`.
fn split_state(config: &Config, state: &[Approx], only: f64) -> (Vec<Approx>, Vec<Approx>) {
    let rank = config.a_rows() as usize;
    if config.state_len() == config.a_rows() {
        return (state.to_vec(), vec![Approx::exact(only); state.len() / rank]);
    }
    let rows = state.chunks(config.state_len() as usize);
    rows.fold(Default::default(), |(mut first, mut second): (Vec<_>, Vec<_>), row| {
        first.extend(&row[..rank]);
        second.extend(&row[rank..]);
        (first, second)
    })
}

/// The mask's numbers, if there is one.
pub fn mask(values: &Values) -> Option<Vec<f32>> {
    values.get("mask").map(|mask| mask.iter().map(|number| number.value as f32).collect())
}

/// A row for each of `tokens` tokens, from rows that several share.
pub fn by_token(config: &Config, rows: GateRows, tokens: usize, values: &[Approx]) -> Vec<Approx> {
    let experts = config.experts as usize;
    let row = |token: usize| match rows {
        GateRows::Token => token,
        GateRows::Sequence(length) => token / length as usize,
        GateRows::Batch => 0,
    };
    (0..tokens).flat_map(|token| values[row(token) * experts..][..experts].iter().copied()).collect()
}

/// Unpacks the matrices in one of the job's packed buffers.
pub fn unpack(config: &Config, packed: &[Approx]) -> Adapter<Approx> {
    let layout = config.layout().expect("a valid configuration");
    layout.unpack(packed).expect("a packed buffer of the layout's length")
}

/// Packs matrices. Padding is exactly zero.
pub fn pack(config: &Config, matrices: &Adapter<Approx>) -> Vec<Approx> {
    let layout = config.layout().expect("a valid configuration");
    layout.pack(matrices).expect("matrices of the configuration's shapes")
}
