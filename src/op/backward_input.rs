//! Backward with respect to the input: dx and the per-token `[dh, dl]`, in one dispatch or two.

use super::{FusedDispatches, check_tokens, groups, matrix_bytes, prepare_fused, product_flops};
use crate::config::Config;
use crate::element::Element;
use crate::error::Error;
use crate::pipeline::{Dispatch, Kernels};
use crate::plan::{DeviceProfile, DispatchPlan, FusedChoice, FusedPlacement, FusedProblem, Work};
use crate::shader::{Access, BackwardInputShader, Shader, WriteMode};
use crate::tensor::{Operand, Role, Tensor};
use crate::tuning::Operation;

/// What the input's backward is prepared with.
///
/// ```text
/// v_i  = s * B_i^T g            dw_i = v_i . h
/// dl   = w * (dw - sum_i w_i dw_i)
/// dh   = sum_i w_i v_i          (+ W_g^T dl for the latent router)
/// dx (+)= A^T dh                (+ W_g^T dl for the input router)
/// ```
#[derive(Debug, Clone, Copy)]
pub struct BackwardInputDescriptor<'a> {
    /// The layer.
    pub config: Config,
    /// Number of tokens T.
    pub tokens: u32,
    /// `dL/dy`: T x `d_out`, of any [`Element`].
    pub g: Tensor<'a>,
    /// The packed adapter ([`Layout`](crate::Layout)), f32.
    pub parameters: Tensor<'a>,
    /// `[h, w]` as forward saved them: T x [`Config::state_len`], f32.
    pub saved: Tensor<'a>,
    /// `dL/dx`: T x `d_in`, of any [`Element`]. `None` for a layer with nothing to learn before it.
    pub dx: Option<Tensor<'a>>,
    /// Accumulate adds to dx, where the frozen layer has put `W0^T g`.
    pub write: WriteMode,
    /// Receives `[dh, dl]` for the parameters' backward: T x [`Config::state_len`], f32.
    pub dstate: Tensor<'a>,
}

/// What of an input backward is not its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "tuner", derive(serde::Serialize, serde::Deserialize))]
pub struct BackwardInputOptions {
    /// g's elements.
    pub g: Element,
    /// dx's elements and how it is written, if it is wanted.
    pub dx: Option<(Element, WriteMode)>,
}

/// An input backward's dispatches, planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackwardInputPlan {
    /// The dispatches in the order they run: one, or for few tokens perhaps two, the shrink's and the rest.
    pub dispatches: Vec<DispatchPlan>,
    /// Bytes of scratch memory: the sums that the shrink leaves; 0 where all is one dispatch.
    pub scratch_bytes: u64,
    /// Bytes of workgroup memory of the last dispatch.
    pub workgroup_memory: u64,
    /// What was chosen.
    pub choice: FusedChoice,
    /// What it does, with what padding and slices repeat.
    pub work: Work,
}

/// A prepared input backward. Recording it costs one dispatch, or two.
#[derive(Debug)]
pub struct BackwardInput {
    dispatches: Vec<Dispatch>,
}

impl BackwardInputPlan {
    /// Plans an input backward: with the device's tuned choice, or else with what is predicted to be
    /// best.
    ///
    /// # Errors
    /// A zero dimension, half-precision rows that are no multiple of four, or a shape that does not
    /// fit the device's limits.
    pub fn new(
        config: &Config,
        tokens: u32,
        options: &BackwardInputOptions,
        device: &DeviceProfile,
    ) -> Result<Self, Error> {
        let problem = problem(config, tokens, *options)?;
        let tuned = device.tuning.fused(config, tokens, Operation::BackwardInput(*options));
        problem.plan(tuned, device, |placed| Self::placed(&problem, *options, placed, device))
    }

    /// Every plan that fits the device; they compute the same.
    ///
    /// # Errors
    /// Those of [`BackwardInputPlan::new`].
    pub fn candidates(
        config: &Config,
        tokens: u32,
        options: &BackwardInputOptions,
        device: &DeviceProfile,
    ) -> Result<Vec<Self>, Error> {
        let problem = problem(config, tokens, *options)?;
        problem.plans(device, |placed| Self::placed(&problem, *options, placed, device))
    }

    /// The choices of every plan that fits the device's limits.
    pub(crate) fn choices(
        config: &Config,
        tokens: u32,
        options: BackwardInputOptions,
        device: &DeviceProfile,
    ) -> Result<Vec<FusedChoice>, Error> {
        let placed = problem(config, tokens, options)?.candidates(device)?;
        Ok(placed.iter().map(|placed| placed.choice).collect())
    }

    /// The least that any input backward has to do: every tensor once, and no padding.
    ///
    /// # Errors
    /// A zero dimension or a configuration that no buffer holds.
    pub fn least_work(config: &Config, tokens: u32, options: &BackwardInputOptions) -> Result<Work, Error> {
        let BackwardInputOptions { g, dx } = *options;
        let layout = check_tokens(config, tokens)?;
        let expand = layout.expand().rows() * layout.expand().stride();
        let without_dx = Work {
            bytes: matrix_bytes(g, tokens, config.d_out) + 2 * config.state_bytes(tokens) + 4 * expand as u64,
            flops: 2 * u64::from(tokens) * u64::from(config.d_out) * u64::from(config.rank * config.experts),
        };
        let Some((element, write)) = dx else { return Ok(without_dx) };
        Ok(Work {
            bytes: without_dx.bytes
                + 4 * (layout.len() - expand) as u64
                + write.passes() * matrix_bytes(element, tokens, config.d_in),
            flops: product_flops(config, tokens),
        })
    }

    fn placed(
        problem: &FusedProblem,
        options: BackwardInputOptions,
        placed: &FusedPlacement,
        device: &DeviceProfile,
    ) -> Result<Self, Error> {
        let BackwardInputOptions { g, dx } = options;
        let FusedProblem { config, tokens, .. } = problem;
        let parts = FusedDispatches {
            problem,
            placed,
            source: Access::new("g", g, config.d_out)?,
            source_width: config.d_out,
            parameters: Element::F32,
            device,
        };
        let access = |(element, write)| Ok((Access::new("dx", element, config.d_in)?, write));
        let dx = dx.map(access).transpose()?;
        let shader = |g| {
            Shader::BackwardInput(BackwardInputShader {
                rank: config.rank,
                experts: config.experts,
                gate: config.gate(),
                tile: placed.tile,
                g,
                dx,
            })
        };
        let dispatches = parts.plan(shader)?;
        let scratch_bytes = placed.shrink.map_or(0, |shrink| shrink.sums);
        let least = Self::least_work(config, *tokens, &options)?;
        Ok(Self {
            dispatches,
            scratch_bytes,
            workgroup_memory: placed.memory,
            choice: placed.choice,
            // The sums are written and read.
            work: Work { bytes: least.bytes + 2 * scratch_bytes, flops: problem.flops(placed) },
        })
    }
}

fn problem(config: &Config, tokens: u32, options: BackwardInputOptions) -> Result<FusedProblem, Error> {
    let layout = check_tokens(config, tokens)?;
    Ok(FusedProblem {
        kernel: "backward_input",
        tokens,
        columns: config.rank * config.experts,
        // `state` and `dstate_tile`
        resident: 2 * u64::from(config.state_len()),
        // `v`
        per_reduced: 1,
        source_groups: groups(config.d_out),
        // Without dx there is nothing to expand.
        target_groups: options.dx.map_or(0, |_| groups(config.d_in)),
        expand_rows: config.shrink_rows(),
        staged: false,
        shrink_matrix: (layout.expand().offset() / 4) as u32,
        config: *config,
    })
}

impl BackwardInput {
    /// Checks the tensors, compiles the shader where needed and binds everything.
    ///
    /// # Errors
    /// Every mistake in shapes, tensors and limits, with the numbers; nothing is recorded then.
    pub fn prepare(kernels: &Kernels, descriptor: &BackwardInputDescriptor<'_>) -> Result<Self, Error> {
        let BackwardInputDescriptor { config, tokens, g, parameters, saved, dx, write, dstate } = *descriptor;
        let options = BackwardInputOptions { g: g.element(), dx: dx.map(|dx| (dx.element(), write)) };
        let plan = BackwardInputPlan::new(&config, tokens, &options, kernels.profile())?;
        let layout = config.layout()?;
        let mut operands = vec![
            Operand::matrix("g", Role::Read, g, tokens, config.d_out),
            Operand::vector("parameters", Role::Read, parameters, layout.len() as u64).only_f32(),
            Operand::matrix("saved", Role::Read, saved, tokens, config.state_len()).only_f32(),
            Operand::matrix("dstate", Role::Write, dstate, tokens, config.state_len()).only_f32(),
        ];
        operands.extend(dx.map(|dx| Operand::matrix("dx", Role::Write, dx, tokens, config.d_in)));
        Ok(Self { dispatches: prepare_fused(kernels, &plan.dispatches, plan.scratch_bytes, &operands)? })
    }

    /// Dispatches that recording it takes: one or two.
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
