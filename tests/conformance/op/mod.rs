//! The library's operations as the suite runs them: prepared on a device through the public API,
//! planned for a device that is not wgpu's, and computed by their twins.

mod adamw;
mod backward_input;
mod backward_params;
mod forward;
mod linear;

pub use adamw::AdamWStep;
pub use backward_input::BackwardInput;
pub use backward_params::BackwardParams;
pub use forward::Forward;
pub use linear::Linear;

use hydralora::device::Gpu;
use hydralora::shader::{Binding, BindingKind};
use hydralora::twin::{Approx, Parameters};
use hydralora::{
    Choice, Config, DeviceProfile, DispatchPlan, Element, Error, FusedChoice, Kernels, Layout, Operation,
    Tensor, WriteMode, wgpu,
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

/// An operation, ready to record.
pub type Prepared = Box<dyn Fn(&mut wgpu::ComputePass<'_>)>;

/// One operation of a job.
pub trait Op: Send + Sync {
    /// Prepares it through the library's API.
    fn prepare(&self, gpu: &Gpu, kernels: &Kernels, tensor: &Lookup<'_>) -> Result<Prepared, Error>;

    /// The same dispatches as data.
    fn plan(&self, device: &DeviceProfile) -> Result<Planned, Error>;

    /// What a tuning table knows it by: layer, tokens and operation, where there is something to choose.
    fn tuned(&self) -> Option<(Config, u32, Operation)> {
        None
    }

    /// Computes what it reads and writes among `values`.
    fn twin(&self, values: &mut Values);
}

/// An operation's dispatches, with the tensors that each binds.
#[derive(Debug)]
pub struct Planned {
    pub dispatches: Vec<NamedDispatch>,
    /// Scratch tensors that the library would allocate: name and elements.
    pub scratch: Vec<(&'static str, usize)>,
    /// What was chosen, where there is something to choose.
    pub choice: Option<Choice>,
}

/// A dispatch and the names of the tensors at bindings 1 and up.
#[derive(Debug)]
pub struct NamedDispatch {
    pub plan: DispatchPlan,
    pub tensors: Vec<String>,
}

impl NamedDispatch {
    /// Names tensors by the shader's variables, which `rename` may change.
    fn new(plan: DispatchPlan, rename: impl Fn(&str) -> Option<String>) -> Self {
        let tensors = plan
            .shader
            .source()
            .bindings
            .iter()
            .filter(|binding| binding.kind != BindingKind::Uniform)
            .map(|Binding { name, .. }| rename(name).unwrap_or_else(|| (*name).to_owned()))
            .collect();
        Self { plan, tensors }
    }
}

impl Planned {
    fn one(plan: DispatchPlan, rename: impl Fn(&str) -> Option<String>) -> Self {
        Self { dispatches: vec![NamedDispatch::new(plan, rename)], scratch: Vec::new(), choice: None }
    }

    /// A fused kernel's dispatches, which may hand each other the sums of a shrink of the tensor `source`.
    fn fused(plans: Vec<DispatchPlan>, scratch_bytes: u64, choice: FusedChoice, source: &str) -> Self {
        let rename = |name: &str| match name {
            "source" => Some(source.to_owned()),
            "x_gradient" => Some("dx".to_owned()),
            _ => None,
        };
        let dispatches = plans.into_iter().map(|plan| NamedDispatch::new(plan, rename)).collect();
        let scratch = (scratch_bytes > 0).then_some(("shrink_sums", (scratch_bytes / 4) as usize));
        Self { dispatches, scratch: scratch.into_iter().collect(), choice: Some(Choice::Fused(choice)) }
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

/// The elements of the router's row i, where there is a router.
fn router_row(config: &Config, layout: &Layout, expert: usize) -> Option<std::ops::Range<usize>> {
    let shared = || layout.shrink().row(config.rank as usize + expert);
    (config.experts > 1).then(|| layout.latent_router().map_or_else(shared, |block| block.row(expert)))
}

/// The matrices in a packed buffer.
pub fn unpack(config: &Config, layout: &Layout, packed: &[Approx]) -> Parameters {
    let (rank, experts) = (config.rank as usize, config.experts as usize);
    let row = |range: std::ops::Range<usize>| packed[range].to_vec();
    let router = (0..experts).filter_map(|expert| router_row(config, layout, expert)).flat_map(row).collect();
    let b = (0..experts)
        .map(|expert| {
            let column = |j: usize| layout.expand().row(expert * rank + j).start;
            (0..layout.expand().columns())
                .flat_map(|o| (0..rank).map(move |j| packed[column(j) + o]))
                .collect()
        })
        .collect();
    Parameters { a: (0..rank).flat_map(|j| row(layout.shrink().row(j))).collect(), router, b }
}

/// The packed form of matrices; padding is exactly zero.
pub fn pack(config: &Config, layout: &Layout, matrices: &Parameters) -> Vec<Approx> {
    let rank = config.rank as usize;
    let mut packed = vec![Approx::exact(0.0); layout.len()];
    for (j, row) in matrices.a.chunks_exact(layout.shrink().columns()).enumerate() {
        packed[layout.shrink().row(j)].copy_from_slice(row);
    }
    let columns = (matrices.router.len() / config.experts as usize).max(1);
    for (expert, row) in matrices.router.chunks_exact(columns).enumerate() {
        if let Some(range) = router_row(config, layout, expert) {
            packed[range].copy_from_slice(row);
        }
    }
    for (expert, b) in matrices.b.iter().enumerate() {
        for (o, row) in b.chunks_exact(rank).enumerate() {
            for (j, &value) in row.iter().enumerate() {
                packed[layout.expand().row(expert * rank + j).start + o] = value;
            }
        }
    }
    packed
}
