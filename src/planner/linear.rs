//! The frozen linear layer, `y = W0 x + bias` or `dx = W0^T g`, in one step, or in two with splits of the inner
//! dimension.

use bytemuck::{Pod, Zeroable};

use super::Problem;
use super::work::{check_matrix, dispatches, matrix_bytes, vecs};
use crate::element::Element;
use crate::error::Error;
use crate::kernel::{Access, BindingKind, LinearReduceShader, LinearShader, LinearTarget, Shader};
use crate::layer::{Config, LinearDirection, LinearOptions, WriteMode};
use crate::plan::linear::{LinearPlacement, LinearProblem};
use crate::plan::{Choice, DeviceProfile, Traffic};
use crate::recording::{Operand, Recording, Slot, Step, Work};

/// `struct Dims` in `uniform/linear.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Dims {
    pub(super) source_width: u32,
    pub(super) target_width: u32,
    pub(super) source_stride: u32,
    pub(super) target_stride: u32,
    pub(super) split_vecs: u32,
    pub(super) splits: u32,
    pub(super) first_tile: u32,
}

/// Advice if the weight does not fit one binding.
const SPLIT_LAYER: &str = "request a device with the adapter's limit, store the weight in half precision, \
                           or split the layer by its outputs";

pub(super) struct Linear {
    d_in: u32,
    d_out: u32,
    options: LinearOptions,
    problem: LinearProblem,
}

/// The widths of the source and the target.
fn widths(config: &Config, options: &LinearOptions) -> [u32; 2] {
    match options.direction {
        LinearDirection::Forward => [config.d_in, config.d_out],
        LinearDirection::Backward => [config.d_out, config.d_in],
    }
}

impl Linear {
    pub(super) fn new(config: &Config, tokens: u32, options: LinearOptions) -> Result<Self, Error> {
        let Config { d_in, d_out, .. } = *config;
        Error::check_dimension("d_in", d_in)?;
        Error::check_dimension("d_out", d_out)?;
        check_matrix(tokens, d_in.max(d_out))?;
        if options.bias && options.direction == LinearDirection::Backward {
            return Err(Error::UnusedTensor { tensor: "bias", reason: "W0^T g has no bias" });
        }
        let [source_vecs, target_vecs] = widths(config, &options).map(vecs);
        let LinearOptions { direction, bias, write, source, weight, target, .. } = options;
        let accumulate = write == WriteMode::Accumulate;
        let stride = options.source_stride.unwrap_or(4 * source_vecs);
        let aligned = (source.bytes() * u64::from(stride)).is_multiple_of(16);
        let traffic = Traffic { source, matrix: weight, target, accumulate };
        let problem = LinearProblem { direction, tokens, source_vecs, target_vecs, bias, aligned, traffic };
        Ok(Self { d_in, d_out, options, problem })
    }
}

impl Problem for Linear {
    fn choices(&self, device: &DeviceProfile) -> Result<Vec<Choice>, Error> {
        Ok(self.problem.choices(device)?.into_iter().map(Choice::Linear).collect())
    }

    fn rounds(&self, choice: Choice, device: &DeviceProfile) -> u64 {
        choice.linear().map_or(u64::MAX, |choice| self.problem.rounds(choice, device))
    }

    fn seconds(&self, choice: Choice, device: &DeviceProfile) -> Result<f64, Error> {
        let placed = self.problem.place(choice.linear()?, device)?;
        Ok(self.problem.seconds(&placed, &device.numbers))
    }

    fn record(&self, choice: Choice, device: &DeviceProfile) -> Result<Recording, Error> {
        let Self { d_in, d_out, options, ref problem } = *self;
        let LinearOptions { direction, bias, write, source, weight, target, .. } = options;
        let placed = problem.place(choice.linear()?, device)?;
        let LinearPlacement { choice, tile, split_vecs, grid, reduce } = placed;
        let tokens = problem.tokens;
        let config = Config { d_in, d_out, ..Config::default() };
        let [source_width, target_width] = widths(&config, &options);
        let [source_name, target_name] = direction.names();
        let read = BindingKind::Read;
        let mut tensors = vec![
            Operand::matrix(source_name, read, source, tokens, source_width)
                .strided(options.source_stride)?,
            Operand::weight("weight", weight, d_out, d_in, SPLIT_LAYER),
            Operand::matrix(target_name, BindingKind::Write, target, tokens, target_width)
                .strided(options.target_stride)?,
        ];
        if bias {
            tensors.push(Operand::vector("bias", read, Element::F32, u64::from(d_out)));
        }
        let [source_stride, _, target_stride] = [0, 1, 2].map(|at| tensors[at].stride as u32);
        let splits = choice.splits;
        let dims = Dims {
            source_width,
            target_width,
            source_stride,
            target_stride,
            split_vecs,
            splits,
            first_tile: 0,
        };
        let target = LinearTarget { access: Access::new(target_name, target, target_width)?, bias, write };
        let shader = |target| {
            let (source, weight) =
                (Access::new(source_name, source, source_width)?, Access::new("weight", weight, d_in)?);
            Ok::<_, Error>(Shader::Linear(LinearShader { direction, tile, source, weight, target }))
        };
        let slots: Vec<_> = tensors.iter().map(|operand| Slot::Tensor(operand.name)).collect();
        let least = least_work(&config, tokens, &options)?;
        let products = |shader: Shader, slots: &[Slot]| {
            let step = |(first_tile, grid)| {
                let (dims, slots) = (Dims { first_tile, ..dims }, slots.to_vec());
                Step::new(shader.clone(), &dims, grid, slots, tile.memory(), tokens, device)
            };
            let grids = grid.divided(tokens, dispatches(least.flops, device));
            grids.into_iter().map(step).collect::<Result<Vec<_>, _>>()
        };
        let mut scratch = Vec::new();
        let steps = match reduce {
            None => products(shader(Some(target))?, &slots)?,
            Some((reduce, sums)) => {
                scratch.push(sums);
                let (of_products, of_targets) = slots.split_at(2);
                let sums = [Slot::Scratch(0)];
                let mut steps = products(shader(None)?, &[of_products, &sums].concat())?;
                let reducer = Shader::LinearReduce(LinearReduceShader { target });
                let slots = [&sums, of_targets].concat();
                steps.push(Step::new(reducer, &dims, reduce, slots, 0, tokens, device)?);
                steps
            }
        };
        // The sums are written and read.
        let bytes = least.bytes + 2 * scratch.iter().sum::<u64>();
        let (choice, work) = (Some(Choice::Linear(choice)), Work { bytes, ..least });
        Ok(Recording { operation: "linear", capacity: tokens, tensors, scratch, steps, choice, work })
    }
}

pub(super) fn least_work(config: &Config, tokens: u32, options: &LinearOptions) -> Result<Work, Error> {
    let LinearOptions { bias, write, source, weight, target, .. } = *options;
    Error::check_dimension("d_in", config.d_in)?;
    Error::check_dimension("d_out", config.d_out)?;
    check_matrix(tokens, config.d_in.max(config.d_out))?;
    let [source_width, target_width] = widths(config, options);
    let bytes = [
        matrix_bytes(source, tokens, source_width),
        matrix_bytes(weight, config.d_out, config.d_in),
        if bias { 4 * u64::from(config.d_out) } else { 0 },
        write.passes() * matrix_bytes(target, tokens, target_width),
    ];
    let bytes = bytes.into_iter().fold(0, u64::saturating_add);
    let product = u64::from(config.d_in) * u64::from(config.d_out);
    Ok(Work { bytes, flops: (2 * u64::from(tokens)).saturating_mul(product) })
}
