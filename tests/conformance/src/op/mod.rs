//! The library's operations as the suite runs them: prepared on a device through the public API,
//! recorded for a device that is not wgpu's, and computed by their twins.

mod adamw;
mod backward_input;
mod backward_params;
mod forward;
mod linear;

pub use adamw::{AdamWStep, of_buffer};

use hydralora::device::Gpu;
use hydralora::twin::Approx;
use hydralora::{
    Adapter, Batch, Capacity, Config, Element, Error, Kernels, Operation, Planner, Plans, Recording, Tensor,
    WriteMode, wgpu,
};

use crate::job::Values;

/// How an operation's tensors are stored; what belongs to training is f32.
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

/// One operation of a job.
pub trait Op: Send + Sync {
    /// Prepares it through the library's API.
    fn prepare(&self, gpu: &Gpu, kernels: &Kernels, tensor: &Lookup<'_>) -> Result<Prepared, Error>;

    /// The same as data.
    fn plan(&self, planner: &Planner) -> Result<Vec<Planned>, Error>;

    /// What a tuning table knows it by: layer, tokens and operation, where there is something to choose.
    fn tuned(&self) -> Option<(Config, u32, Operation)> {
        None
    }

    /// Computes what it reads and writes among `values`.
    fn twin(&self, values: &mut Values);
}

/// A recording, and what a job has for it.
#[derive(Debug)]
pub struct Planned {
    pub recording: Recording,
    /// The job's names for the recording's tensors, in their order.
    pub names: Vec<String>,
    /// The tokens that it is run for.
    pub tokens: u32,
    /// What the uniform of group 1 holds.
    pub varying: Vec<u8>,
}

/// An operation on the tokens of a layer.
#[derive(Debug, Clone, Copy)]
pub struct LayerOp {
    pub operation: Operation,
    pub config: Config,
    pub tokens: u32,
    /// For how many tokens more it is prepared.
    pub room: u32,
}

impl LayerOp {
    pub fn new(operation: Operation, config: Config, tokens: u32) -> Self {
        Self { operation, config, tokens, room: 0 }
    }

    /// Exactly one plan where there is no room: the one that is under test.
    fn capacity(&self) -> Capacity {
        let plans = if self.room == 0 { Plans::One } else { Plans::Several };
        Capacity { tokens: self.tokens + self.room, plans }
    }
}

impl Op for LayerOp {
    fn prepare(&self, _: &Gpu, kernels: &Kernels, tensor: &Lookup<'_>) -> Result<Prepared, Error> {
        let prepared = kernels.prepare(&self.operation, &self.config, self.capacity())?;
        let operands = prepared.recordings().flat_map(|recording| &recording.tensors);
        let mut tensors: Vec<_> = operands.map(|operand| (operand.name, tensor(operand.name))).collect();
        // Several plans bind the same ones.
        tensors.sort_by_key(|(name, _)| *name);
        tensors.dedup_by_key(|(name, _)| *name);
        let bound = prepared.bind(&tensors)?;
        let batch = Batch::new(kernels, self.tokens)?;
        Ok(Box::new(move |pass| bound.encode(pass, &batch)))
    }

    fn plan(&self, planner: &Planner) -> Result<Vec<Planned>, Error> {
        let recording = planner.plan(&self.operation, &self.config, self.capacity().tokens)?;
        let names = recording.tensors.iter().map(|operand| operand.name.to_owned()).collect();
        let varying = bytemuck::bytes_of(&[self.tokens, 0, 0, 0]).to_vec();
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
        }
    }
}

/// A tensor's values.
fn read<'a>(values: &'a Values, name: &str) -> &'a [Approx] {
    values.get(name).unwrap_or_else(|| panic!("the twin needs {name}"))
}

/// What a written tensor held before, if it is added to.
fn before<'a>(values: &'a Values, name: &str, write: WriteMode) -> Option<&'a [Approx]> {
    (write == WriteMode::Accumulate).then(|| read(values, name))
}

/// Rows `[first, second]`, as kernels keep per-token state; for one expert the first alone.
fn interleave(config: &Config, first: &[Approx], second: &[Approx]) -> Vec<Approx> {
    if config.experts == 1 {
        return first.to_vec();
    }
    let (rank, experts) = (config.rank as usize, config.experts as usize);
    first.chunks(rank).zip(second.chunks(experts)).flat_map(|(a, b)| [a, b].concat()).collect()
}

/// The two parts of rows `[first, second]`; one expert's second is `only`.
fn split_state(config: &Config, state: &[Approx], only: f64) -> (Vec<Approx>, Vec<Approx>) {
    let rank = config.rank as usize;
    if config.experts == 1 {
        return (state.to_vec(), vec![Approx::exact(only); state.len() / rank]);
    }
    let rows = state.chunks(rank + config.experts as usize);
    rows.fold(Default::default(), |(mut first, mut second): (Vec<_>, Vec<_>), row| {
        first.extend(&row[..rank]);
        second.extend(&row[rank..]);
        (first, second)
    })
}

/// The matrices in a packed buffer of the job's.
pub fn unpack(config: &Config, packed: &[Approx]) -> Adapter<Approx> {
    let layout = config.layout().expect("a valid configuration");
    layout.unpack(packed).expect("a packed buffer of the layout's length")
}

/// The packed form of matrices; padding is exactly zero.
pub fn pack(config: &Config, matrices: &Adapter<Approx>) -> Vec<Approx> {
    let layout = config.layout().expect("a valid configuration");
    layout.pack(matrices).expect("matrices of the configuration's shapes")
}
