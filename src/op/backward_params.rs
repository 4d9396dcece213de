//! Backward with respect to the parameters: dA, every `dB_i` and `dW_g`, in one dispatch, or in software
//! one for each kind of block, and, where the tokens are split, one fixed-order reduction.

use bytemuck::{Pod, Zeroable};

use super::{check_tokens, matrix_bytes, product_flops};
use crate::config::Config;
use crate::element::Element;
use crate::error::Error;
use crate::pipeline::{Dispatch, Kernels};
use crate::plan::{
    DeviceProfile, DispatchPlan, OuterBlock, OuterChoice, OuterDispatch, OuterPlacement, OuterProblem,
    WORKGROUP, Work, fold,
};
use crate::shader::{Access, BackwardParamsShader, ReduceShader, Shader, WriteMode};
use crate::tensor::{Operand, Role, Tensor, check_operands};
use crate::tuning::Operation;

/// What the parameters' backward is prepared with.
///
/// ```text
/// dA = sum_t dh x^T      dB_i = s * sum_t w_i g h^T      dW_g = sum_t dl x^T  (latent: dl h^T)
/// ```
#[derive(Debug, Clone, Copy)]
pub struct BackwardParamsDescriptor<'a> {
    /// The layer.
    pub config: Config,
    /// Number of tokens T.
    pub tokens: u32,
    /// The input: T x `d_in`, of any [`Element`].
    pub x: Tensor<'a>,
    /// `dL/dy`: T x `d_out`, of any [`Element`].
    pub g: Tensor<'a>,
    /// `[h, w]` as forward saved them: T x [`Config::state_len`], f32.
    pub saved: Tensor<'a>,
    /// `[dh, dl]` as the input's backward wrote them: T x [`Config::state_len`], f32.
    pub dstate: Tensor<'a>,
    /// The gradients, packed like the parameters ([`Layout`](crate::Layout)), f32.
    pub gradients: Tensor<'a>,
    /// Accumulate adds to the gradients: gradient accumulation over micro-batches.
    pub write: WriteMode,
    /// Room for [`BackwardParamsPlan::scratch_bytes`], which operations that do not run at the same
    /// time may share. `None` lets the operation allocate its own.
    pub scratch: Option<Tensor<'a>>,
}

/// What of a parameter backward is not its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "tuner", derive(serde::Serialize, serde::Deserialize))]
pub struct BackwardParamsOptions {
    /// Whether the gradients are overwritten or added to.
    pub write: WriteMode,
    /// x's elements.
    pub x: Element,
    /// g's elements.
    pub g: Element,
}

/// A parameter backward's dispatches, planned, and its scratch memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackwardParamsPlan {
    /// The dispatches in the order they run: one, or one for each kind of block. Where the tokens are split,
    /// these write their gradients to scratch memory, from where a last one adds them up.
    pub dispatches: Vec<DispatchPlan>,
    /// Bytes of scratch memory: a copy of the gradients for each split; 0 when not split.
    pub scratch_bytes: u64,
    /// What was chosen.
    pub choice: OuterChoice,
    /// What it does, with what padding and splits add.
    pub work: Work,
}

/// A prepared parameter backward. Recording it costs one dispatch for each of its plan's.
#[derive(Debug)]
pub struct BackwardParams {
    dispatches: Vec<Dispatch>,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Dims {
    tokens: u32,
    d_in: u32,
    d_out: u32,
    split_tokens: u32,
    expand_start: u32,
    latent_start: u32,
    end: u32,
    scaling: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ReduceDims {
    groups: u32,
    splits: u32,
}

impl BackwardParamsPlan {
    /// Plans a parameter backward: with the device's tuned choice, or else with what is predicted to be
    /// best.
    ///
    /// # Errors
    /// A zero dimension, half-precision rows that are no multiple of four, or a shape that does not
    /// fit the device's limits.
    pub fn new(
        config: &Config,
        tokens: u32,
        options: &BackwardParamsOptions,
        device: &DeviceProfile,
    ) -> Result<Self, Error> {
        let problem = problem(config, tokens)?;
        let tuned = device.tuning.outer(config, tokens, Operation::BackwardParams(*options));
        problem.plan(tuned, device, |placed| Self::placed(&problem, *options, placed, device))
    }

    /// Every plan that fits the device; they compute the same, with sums in other orders.
    ///
    /// # Errors
    /// Those of [`BackwardParamsPlan::new`].
    pub fn candidates(
        config: &Config,
        tokens: u32,
        options: &BackwardParamsOptions,
        device: &DeviceProfile,
    ) -> Result<Vec<Self>, Error> {
        let problem = problem(config, tokens)?;
        problem.plans(device, |placed| Self::placed(&problem, *options, placed, device))
    }

    /// The choices of every plan that fits the device's limits.
    pub(crate) fn choices(
        config: &Config,
        tokens: u32,
        device: &DeviceProfile,
    ) -> Result<Vec<OuterChoice>, Error> {
        let placed = problem(config, tokens)?.candidates(device)?;
        Ok(placed.iter().map(|placed| placed.choice).collect())
    }

    /// The least that any parameter backward has to do: every tensor once, and no padding.
    ///
    /// # Errors
    /// A zero dimension or a configuration that no buffer holds.
    pub fn least_work(config: &Config, tokens: u32, options: &BackwardParamsOptions) -> Result<Work, Error> {
        let BackwardParamsOptions { write, x, g } = *options;
        let layout = check_tokens(config, tokens)?;
        let bytes = matrix_bytes(x, tokens, config.d_in)
            + matrix_bytes(g, tokens, config.d_out)
            + 2 * config.state_bytes(tokens)
            + write.passes() * layout.bytes();
        Ok(Work { bytes, flops: product_flops(config, tokens) })
    }

    fn placed(
        problem: &OuterProblem,
        options: BackwardParamsOptions,
        placed: &OuterPlacement,
        device: &DeviceProfile,
    ) -> Result<Self, Error> {
        let BackwardParamsOptions { write, x, g } = options;
        let OuterProblem { config, layout, tokens } = problem;
        let OuterPlacement { choice, split_tokens, holders, ref dispatches } = *placed;
        let outer = |write, OuterDispatch { blocks, grid }: OuterDispatch| {
            let [shrink, expand, latent] = blocks.map(|block| block.workgroups);
            let dims = Dims {
                tokens: *tokens,
                d_in: config.d_in,
                d_out: config.d_out,
                split_tokens,
                expand_start: shrink,
                latent_start: shrink + expand,
                end: shrink + expand + latent,
                scaling: config.scaling,
            };
            let shader = Shader::BackwardParams(BackwardParamsShader {
                rank: config.rank,
                experts: config.experts,
                gate: config.gate(),
                rows: blocks.map(|block: OuterBlock| block.rows),
                holders,
                x: Access::new("x", x, config.d_in)?,
                g: Access::new("g", g, config.d_out)?,
                write,
            });
            DispatchPlan::new(shader, &dims, grid, device)
        };
        let work = Work { flops: problem.flops(placed), ..Self::least_work(config, *tokens, &options)? };
        let outers =
            |write| dispatches.iter().map(|&dispatch| outer(write, dispatch)).collect::<Result<Vec<_>, _>>();
        if choice.splits == 1 {
            return Ok(Self { dispatches: outers(write)?, scratch_bytes: 0, choice, work });
        }
        let groups = (layout.len() / 4) as u32;
        let [x, y] = fold(
            "backward_params_reduce",
            groups.div_ceil(WORKGROUP),
            &device.limits,
            "use a narrower layer",
        )?;
        let reduce = Shader::BackwardParamsReduce(ReduceShader { write });
        let dims = ReduceDims { groups, splits: choice.splits };
        let reduce = DispatchPlan::new(reduce, &dims, [x, y, 1], device)?;
        let scratch_bytes = u64::from(choice.splits) * layout.bytes();
        // The copies are written and read.
        let work = Work { bytes: work.bytes + 2 * scratch_bytes, ..work };
        let mut dispatches = outers(WriteMode::Overwrite)?;
        dispatches.push(reduce);
        Ok(Self { dispatches, scratch_bytes, choice, work })
    }
}

fn problem(config: &Config, tokens: u32) -> Result<OuterProblem, Error> {
    Ok(OuterProblem { config: *config, layout: check_tokens(config, tokens)?, tokens })
}

impl BackwardParams {
    /// Checks the tensors, compiles the shaders where needed and binds everything.
    ///
    /// # Errors
    /// Every mistake in shapes, tensors and limits, with the numbers; nothing is recorded then.
    pub fn prepare(kernels: &Kernels, descriptor: &BackwardParamsDescriptor<'_>) -> Result<Self, Error> {
        let BackwardParamsDescriptor { config, tokens, x, g, saved, dstate, gradients, write, scratch } =
            *descriptor;
        let layout = check_tokens(&config, tokens)?;
        let options = BackwardParamsOptions { write, x: x.element(), g: g.element() };
        let plan = BackwardParamsPlan::new(&config, tokens, &options, kernels.profile())?;
        let inputs = [
            Operand::matrix("x", Role::Read, x, tokens, config.d_in),
            Operand::matrix("g", Role::Read, g, tokens, config.d_out),
            Operand::matrix("saved", Role::Read, saved, tokens, config.state_len()).only_f32(),
            Operand::matrix("dstate", Role::Read, dstate, tokens, config.state_len()).only_f32(),
        ];
        let gradients = Operand::vector("gradients", Role::Write, gradients, layout.len() as u64).only_f32();
        let copies =
            |scratch, role| Operand::vector("scratch", role, scratch, plan.scratch_bytes / 4).only_f32();
        // All together, so that what may share a buffer does not depend on the plan.
        let scratch_operand = scratch.map(|scratch| copies(scratch, Role::Write));
        let all: Vec<_> = inputs.iter().chain([&gradients]).chain(&scratch_operand).cloned().collect();
        check_operands(&all, &kernels.profile().limits)?;
        let outers = |plans: &[DispatchPlan], output: &Operand<'_>| {
            let operands: Vec<_> = inputs.iter().chain([output]).cloned().collect();
            plans.iter().map(|plan| kernels.dispatch(plan, &operands)).collect::<Result<Vec<_>, _>>()
        };
        let (reduce, split) = match plan.dispatches.split_last() {
            Some((reduce, split)) if plan.choice.splits > 1 => (reduce, split),
            _ => return Ok(Self { dispatches: outers(&plan.dispatches, &gradients)? }),
        };
        let owned;
        let scratch = if let Some(scratch) = scratch {
            scratch
        } else {
            owned = kernels.scratch("hydralora backward_params scratch", plan.scratch_bytes)?;
            Tensor::from(&owned)
        };
        let mut dispatches = outers(split, &copies(scratch, Role::Write))?;
        dispatches.push(kernels.dispatch(reduce, &[copies(scratch, Role::Read), gradients])?);
        Ok(Self { dispatches })
    }

    /// Dispatches that recording it takes: from one to four.
    #[must_use]
    pub fn dispatches(&self) -> usize {
        self.dispatches.len()
    }

    /// Records the operation.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        for dispatch in &self.dispatches {
            dispatch.encode(pass);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::op::tests::{CONFIG, assert_uniform, profile};

    #[test]
    fn uniforms_match() {
        let [x, g] = [Element::F32; 2];
        let options = BackwardParamsOptions { write: WriteMode::Overwrite, x, g };
        let plan = BackwardParamsPlan::new(&CONFIG, 2048, &options, &profile()).expect("it fits");
        let [outer, reduce] = &plan.dispatches[..] else { panic!("2048 tokens are split") };
        assert_uniform(
            &outer.shader,
            size_of::<Dims>(),
            &[
                ("tokens", offset_of!(Dims, tokens)),
                ("d_in", offset_of!(Dims, d_in)),
                ("d_out", offset_of!(Dims, d_out)),
                ("split_tokens", offset_of!(Dims, split_tokens)),
                ("expand_start", offset_of!(Dims, expand_start)),
                ("latent_start", offset_of!(Dims, latent_start)),
                ("end", offset_of!(Dims, end)),
                ("scaling", offset_of!(Dims, scaling)),
            ],
        );
        assert_uniform(
            &reduce.shader,
            size_of::<ReduceDims>(),
            &[("groups", offset_of!(ReduceDims, groups)), ("splits", offset_of!(ReduceDims, splits))],
        );
    }
}
