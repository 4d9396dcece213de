//! Backward with respect to the parameters: dA, every `dB_i` and `dW_g`. One step, or one for each kind of
//! block, which pays off on software drivers. If the tokens are split, a reduction in a fixed order follows.

use bytemuck::{Pod, Zeroable};

use super::Problem;
use super::fused::{drop_numbers, mask};
use super::work::{check_tokens, dispatches, matrix_bytes, product_flops};
use crate::element::Element;
use crate::error::Error;
use crate::kernel::{Access, BackwardParamsShader, BindingKind, Drops, ReduceShader, Shader};
use crate::layer::{BackwardParamsOptions, Config, Layout, WriteMode};
use crate::plan::outer::{OuterBlock, OuterDispatch, OuterPlacement, OuterProblem};
use crate::plan::{Choice, DeviceProfile, Grid, Traffic, WORKGROUP, fold, share};
use crate::recording::{Operand, Recording, Slot, Step, Work};

/// `struct Dims` in `backward_params.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Dims {
    pub(super) d_in: u32,
    pub(super) d_out: u32,
    pub(super) x_stride: u32,
    pub(super) g_stride: u32,
    pub(super) splits: u32,
    pub(super) expand_start: u32,
    pub(super) gate_start: u32,
    pub(super) first: u32,
    pub(super) end: u32,
    pub(super) expand_block: u32,
    pub(super) gate_block: u32,
    pub(super) packed: u32,
    pub(super) scaling: f32,
    pub(super) dropout_threshold: u32,
    pub(super) keep_scale: f32,
    pub(super) dropout_stream: u32,
}

/// `struct Dims` in `backward_params_reduce.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct ReduceDims {
    pub(super) vecs: u32,
    pub(super) splits: u32,
}

pub(super) struct BackwardParams {
    config: Config,
    layout: Layout,
    options: BackwardParamsOptions,
    problem: OuterProblem,
}

impl BackwardParams {
    pub(super) fn new(config: &Config, tokens: u32, options: BackwardParamsOptions) -> Result<Self, Error> {
        let layout = check_tokens(config, tokens)?;
        // x and g may be stored differently; the wider decides.
        let source = if options.x.bytes() > options.g.bytes() { options.x } else { options.g };
        let traffic = Traffic {
            source,
            matrix: Element::F32,
            target: Element::F32,
            accumulate: options.write == WriteMode::Accumulate,
        };
        let problem = OuterProblem { config: *config, layout, tokens, traffic };
        Ok(Self { config: *config, layout, options, problem })
    }

    fn tensors(&self) -> Result<Vec<Operand>, Error> {
        let Self { config, layout, options, problem: OuterProblem { tokens, .. } } = self;
        let (read, write) = (BindingKind::Read, BindingKind::Write);
        let state = |name| Operand::matrix(name, read, Element::F32, *tokens, config.state_len());
        let mut tensors = vec![
            Operand::matrix("x", read, options.x, *tokens, config.d_in).strided(options.x_stride)?,
            Operand::matrix("g", read, options.g, *tokens, config.d_out).strided(options.g_stride)?,
            state("saved"),
            state("dstate"),
            Operand::vector("gradients", write, Element::F32, layout.len() as u64),
        ];
        if options.mask {
            tensors.push(mask(*tokens));
        }
        Ok(tensors)
    }

    /// The steps of one dispatch of the products, which write gradients to `output`: several if it is more work
    /// than a dispatch may do.
    fn outer(
        &self,
        placed: &OuterPlacement,
        OuterDispatch { blocks, grid }: OuterDispatch,
        output: Slot,
        write: WriteMode,
        device: &DeviceProfile,
    ) -> Result<Vec<Step>, Error> {
        let Self { config, options, ref problem, .. } = *self;
        let [shrink, expand, gate] = blocks.map(|block| block.workgroups);
        let Config { d_in, d_out, rank, experts, scaling, .. } = config;
        let splits = placed.choice.splits;
        let (expand_start, gate_start, end) = (shrink, shrink + expand, shrink + expand + gate);
        let (x_stride, g_stride) = (options.x_stride.unwrap_or(d_in), options.g_stride.unwrap_or(d_out));
        let [expand_block, gate_block, packed] = self.layout.vecs();
        let (dropout_threshold, keep_scale, dropout_stream) = drop_numbers(config.drops());
        let dims = Dims {
            d_in,
            d_out,
            x_stride,
            g_stride,
            splits,
            expand_start,
            gate_start,
            first: 0,
            end,
            expand_block,
            gate_block,
            packed,
            scaling,
            dropout_threshold,
            keep_scale,
            dropout_stream,
        };
        let shader = Shader::BackwardParams(BackwardParamsShader {
            a_rows: config.a_rows(),
            rank,
            experts,
            gate: config.gate(),
            rows: blocks.map(|block: OuterBlock| block.rows),
            threads: placed.choice.threads,
            tokens_at_once: placed.tokens_at_once,
            broadcast_lanes: placed.broadcast_lanes,
            x: Access::new("x", options.x, d_in)?,
            g: Access::new("g", options.g, d_out)?,
            write,
            drops: config.drops().map(|dropout| Drops::new(dropout, device)),
            mask: options.mask,
        });
        let slots: Vec<Slot> =
            ["x", "g", "saved", "dstate"].map(Slot::Tensor).into_iter().chain([output]).collect();
        let slots = slots.into_iter().chain(options.mask.then_some(Slot::Tensor("mask"))).collect::<Vec<_>>();
        let memory = 16 * u64::from(placed.choice.threads);
        let step = |dims: Dims, grid| {
            Step::new(shader.clone(), &dims, Grid::Fixed(grid), slots.clone(), memory, problem.tokens, device)
        };
        let parts = dispatches(problem.flops(placed), device);
        if parts == 1 {
            return Ok(vec![step(dims, grid)?]);
        }
        let count = share(end, parts).min(device.limits.max_compute_workgroups_per_dimension);
        let firsts = (0..end).step_by(count as usize);
        let part = |first: u32| {
            let end = end.min(first.saturating_add(count));
            step(Dims { first, end, ..dims }, [end - first, grid[1], 1])
        };
        firsts.map(part).collect()
    }

    /// The step that adds up the copies of the splits.
    fn reduce(&self, splits: u32, device: &DeviceProfile) -> Result<Step, Error> {
        let vecs = (self.layout.len() / 4) as u32;
        let workgroups = vecs.div_ceil(WORKGROUP);
        let [x, y] = fold("backward_params_reduce", workgroups, &device.limits, "use a narrower layer")?;
        let shader = Shader::BackwardParamsReduce(ReduceShader { write: self.options.write });
        let slots = vec![Slot::Scratch(0), Slot::Tensor("gradients")];
        let dims = ReduceDims { vecs, splits };
        Step::new(shader, &dims, Grid::Fixed([x, y, 1]), slots, 0, self.problem.tokens, device)
    }
}

impl Problem for BackwardParams {
    fn choices(&self, device: &DeviceProfile) -> Result<Vec<Choice>, Error> {
        Ok(self.problem.candidates(device)?.iter().map(|placed| Choice::Outer(placed.choice)).collect())
    }

    fn rounds(&self, choice: Choice, device: &DeviceProfile) -> u64 {
        let placed = choice.outer().and_then(|choice| self.problem.place(choice, device));
        placed.map_or(u64::MAX, |placed| u64::from(placed.split_tokens))
    }

    fn seconds(&self, choice: Choice, device: &DeviceProfile) -> Result<f64, Error> {
        let placed = self.problem.place(choice.outer()?, device)?;
        Ok(self.problem.seconds(&placed, &device.numbers))
    }

    fn record(&self, choice: Choice, device: &DeviceProfile) -> Result<Recording, Error> {
        let Self { config, layout, options, problem } = self;
        let placed = problem.place(choice.outer()?, device)?;
        let splits = placed.choice.splits;
        let (output, write, scratch) = if splits == 1 {
            (Slot::Tensor("gradients"), options.write, Vec::new())
        } else {
            (Slot::Scratch(0), WriteMode::Overwrite, vec![u64::from(splits) * layout.bytes()])
        };
        let outers = placed.dispatches.iter();
        let outers = outers.map(|&dispatch| self.outer(&placed, dispatch, output, write, device));
        let mut steps = outers.collect::<Result<Vec<_>, _>>()?.concat();
        if splits > 1 {
            steps.push(self.reduce(splits, device)?);
        }
        let least = least_work(config, problem.tokens, options)?;
        // The copies are written and read.
        let bytes = least.bytes + 2 * scratch.iter().sum::<u64>();
        Ok(Recording {
            operation: "backward_params",
            capacity: problem.tokens,
            tensors: self.tensors()?,
            scratch,
            steps,
            choice: Some(Choice::Outer(placed.choice)),
            work: Work { bytes, flops: problem.flops(&placed) },
        })
    }
}

pub(super) fn least_work(
    config: &Config,
    tokens: u32,
    options: &BackwardParamsOptions,
) -> Result<Work, Error> {
    let BackwardParamsOptions { write, x, g, .. } = *options;
    let layout = check_tokens(config, tokens)?;
    let bytes = matrix_bytes(x, tokens, config.d_in)
        + matrix_bytes(g, tokens, config.d_out)
        + 2 * config.state_bytes(tokens)
        + write.passes() * layout.bytes();
    Ok(Work { bytes, flops: product_flops(config, tokens) })
}
