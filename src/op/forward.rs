//! Forward: the adapter's whole contribution to y, in one dispatch.

use super::{FusedDims, check_tokens, groups};
use crate::config::Config;
use crate::element::Element;
use crate::error::Error;
use crate::pipeline::{Dispatch, Kernels};
use crate::plan::{DeviceProfile, DispatchPlan, TileProblem};
use crate::shader::{Access, ForwardShader, Shader, WriteMode};
use crate::tensor::{Operand, Role, Tensor};

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
    /// Training: T x (rank + experts), f32, receives `[h, w]` for the backward operations.
    pub saved: Option<Tensor<'a>>,
}

/// What of a forward is not its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

/// A forward's dispatch, planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardPlan {
    /// The one dispatch.
    pub dispatch: DispatchPlan,
    /// Bytes of workgroup memory.
    pub workgroup_memory: u64,
}

/// A prepared forward. Recording it costs one dispatch.
#[derive(Debug)]
pub struct Forward {
    dispatch: Dispatch,
}

impl ForwardPlan {
    /// Plans a forward.
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
        let ForwardOptions { write, save, x, parameters, y } = *options;
        check_tokens(config, tokens)?;
        let plan = TileProblem {
            kernel: "forward",
            tokens,
            columns: config.shrink_rows(),
            resident: u64::from(config.state_len()),
            per_reduced: 0,
            source_groups: groups(config.d_in),
            target_groups: groups(config.d_out),
            expand_rows: [config.experts, config.rank],
            config: *config,
        }
        .plan(device)?;
        let shader = Shader::Forward(ForwardShader {
            rank: config.rank,
            experts: config.experts,
            router: config.router,
            tile: plan.tile,
            x: Access::new("x", x, config.d_in)?,
            parameters,
            y: Access::new("y", y, config.d_out)?,
            write,
            save,
        });
        let dims = FusedDims::new(config, tokens, plan.slice_groups);
        Ok(Self {
            dispatch: DispatchPlan::new(shader, &dims, plan.grid, device)?,
            workgroup_memory: plan.memory,
        })
    }
}

impl Forward {
    /// Checks the tensors, compiles the shader where needed and binds everything.
    ///
    /// # Errors
    /// Every mistake in shapes, tensors and limits, with the numbers; nothing is recorded then.
    pub fn prepare(kernels: &Kernels, descriptor: &ForwardDescriptor<'_>) -> Result<Self, Error> {
        let ForwardDescriptor { config, tokens, x, parameters, y, write, saved } = *descriptor;
        let layout = check_tokens(&config, tokens)?;
        let options = ForwardOptions {
            write,
            save: saved.is_some(),
            x: x.element(),
            parameters: parameters.element(),
            y: y.element(),
        };
        let plan = ForwardPlan::new(&config, tokens, &options, kernels.profile())?;
        let mut operands = vec![
            Operand::matrix("x", Role::Read, x, tokens, config.d_in),
            Operand::vector("parameters", Role::Read, parameters, layout.len() as u64),
            Operand::matrix("y", Role::Write, y, tokens, config.d_out),
        ];
        operands.extend(saved.map(|saved| {
            Operand::matrix("saved", Role::Write, saved, tokens, config.state_len()).only_f32()
        }));
        Ok(Self { dispatch: kernels.dispatch(&plan.dispatch, &operands)? })
    }

    /// Records the operation.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.dispatch.encode(pass);
    }
}
