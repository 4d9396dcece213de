//! Forward: the adapter's whole contribution to y, in one dispatch or two.

use super::{FusedDispatches, check_tokens, groups, matrix_bytes, prepare_fused, product_flops};
use crate::config::Config;
use crate::element::Element;
use crate::error::Error;
use crate::pipeline::{Dispatch, Kernels};
use crate::plan::{DeviceProfile, DispatchPlan, FusedChoice, FusedPlacement, FusedProblem, Work};
use crate::shader::{Access, ForwardShader, Shader, WriteMode};
use crate::tensor::{Operand, Role, Tensor};
use crate::tuning::Operation;

/// What forward is prepared with: `y (+)= s * sum_i softmax(l)_i B_i A x`.
///
/// Source: HydraLoRA (NeurIPS 2024) equations 4 to 6; the released `Linear.forward`, without W0.
#[derive(Debug, Clone, Copy)]
pub struct ForwardDescriptor<'a> {
    /// The layer.
    pub config: Config,
    /// Number of tokens T.
    pub tokens: u32,
    /// T x `d_in`, of any [`Element`].
    pub x: Tensor<'a>,
    /// The packed adapter ([`Layout`](crate::Layout)), of any [`Element`]; f32 in training, where
    /// backward reads it too.
    pub parameters: Tensor<'a>,
    /// T x `d_out`, of any [`Element`].
    pub y: Tensor<'a>,
    /// Accumulate adds to y, where the frozen layer has put `W0 x + bias`.
    pub write: WriteMode,
    /// Training: T x [`Config::state_len`], f32, receives `[h, w]` for the backward operations.
    pub saved: Option<Tensor<'a>>,
}

/// What of a forward is not its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "tuner", derive(serde::Serialize, serde::Deserialize))]
pub struct ForwardOptions {
    /// Whether y is overwritten or added to.
    pub write: WriteMode,
    /// Whether `[h, w]` are saved for backward.
    pub save: bool,
    /// x's elements.
    pub x: Element,
    /// The parameters' elements.
    pub parameters: Element,
    /// y's elements.
    pub y: Element,
}

/// A forward's dispatches, planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardPlan {
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

/// A prepared forward. Recording it costs one dispatch, or two.
#[derive(Debug)]
pub struct Forward {
    dispatches: Vec<Dispatch>,
}

impl ForwardPlan {
    /// Plans a forward: with the device's tuned choice, or else with what is predicted to be best.
    ///
    /// # Errors
    /// A zero dimension, half-precision rows that are no multiple of four, or a shape that does not
    /// fit the device's limits.
    pub fn new(
        config: &Config,
        tokens: u32,
        options: &ForwardOptions,
        device: &DeviceProfile,
    ) -> Result<Self, Error> {
        let problem = problem(config, tokens)?;
        let tuned = device.tuning.fused(config, tokens, Operation::Forward(*options));
        problem.plan(tuned, device, |placed| Self::placed(&problem, *options, placed, device))
    }

    /// Every plan that fits the device; they compute the same.
    ///
    /// # Errors
    /// Those of [`ForwardPlan::new`].
    pub fn candidates(
        config: &Config,
        tokens: u32,
        options: &ForwardOptions,
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
    ) -> Result<Vec<FusedChoice>, Error> {
        let placed = problem(config, tokens)?.candidates(device)?;
        Ok(placed.iter().map(|placed| placed.choice).collect())
    }

    /// The least that any forward has to do: every tensor once, and no padding.
    ///
    /// # Errors
    /// A zero dimension or a configuration that no buffer holds.
    pub fn least_work(config: &Config, tokens: u32, options: &ForwardOptions) -> Result<Work, Error> {
        let ForwardOptions { write, save, x, parameters, y } = *options;
        let layout = check_tokens(config, tokens)?;
        let state = if save { config.state_bytes(tokens) } else { 0 };
        let bytes = matrix_bytes(x, tokens, config.d_in)
            + layout.len() as u64 * parameters.bytes()
            + write.passes() * matrix_bytes(y, tokens, config.d_out)
            + state;
        Ok(Work { bytes, flops: product_flops(config, tokens) })
    }

    fn placed(
        problem: &FusedProblem,
        options: ForwardOptions,
        placed: &FusedPlacement,
        device: &DeviceProfile,
    ) -> Result<Self, Error> {
        let ForwardOptions { write, save, x, parameters, y } = options;
        let FusedProblem { config, tokens, .. } = problem;
        let parts = FusedDispatches {
            problem,
            placed,
            source: Access::new("x", x, config.d_in)?,
            source_width: config.d_in,
            parameters,
            device,
        };
        let y = Access::new("y", y, config.d_out)?;
        let shader = |x| {
            Shader::Forward(ForwardShader {
                rank: config.rank,
                experts: config.experts,
                gate: config.gate(),
                tile: placed.tile,
                x,
                parameters,
                y,
                write,
                save,
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

fn problem(config: &Config, tokens: u32) -> Result<FusedProblem, Error> {
    check_tokens(config, tokens)?;
    Ok(FusedProblem {
        kernel: "forward",
        tokens,
        columns: config.shrink_rows(),
        resident: u64::from(config.state_len()),
        per_reduced: 0,
        source_groups: groups(config.d_in),
        target_groups: groups(config.d_out),
        expand_rows: config.rank * config.experts,
        staged: true,
        shrink_matrix: 0,
        config: *config,
    })
}

impl Forward {
    /// Checks the tensors, compiles the shader where needed and binds everything.
    ///
    /// # Errors
    /// Every mistake in shapes, tensors and limits, with the numbers; nothing is recorded then.
    pub fn prepare(kernels: &Kernels, descriptor: &ForwardDescriptor<'_>) -> Result<Self, Error> {
        let ForwardDescriptor { config, tokens, x, parameters, y, write, saved } = *descriptor;
        let options = ForwardOptions {
            write,
            save: saved.is_some(),
            x: x.element(),
            parameters: parameters.element(),
            y: y.element(),
        };
        let plan = ForwardPlan::new(&config, tokens, &options, kernels.profile())?;
        let layout = config.layout()?;
        let mut operands = vec![
            Operand::matrix("x", Role::Read, x, tokens, config.d_in),
            Operand::vector("parameters", Role::Read, parameters, layout.len() as u64),
            Operand::matrix("y", Role::Write, y, tokens, config.d_out),
        ];
        operands.extend(saved.map(|saved| {
            Operand::matrix("saved", Role::Write, saved, tokens, config.state_len()).only_f32()
        }));
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
