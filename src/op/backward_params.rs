//! Backward with respect to the parameters: dA, every `dB_i` and `dW_g`, in one dispatch and, where
//! the tokens are split, one fixed-order reduction.

use bytemuck::{Pod, Zeroable};

use super::{check_tokens, groups};
use crate::config::{Config, Router};
use crate::element::Element;
use crate::error::Error;
use crate::pipeline::{Dispatch, Kernels};
use crate::plan::{DeviceProfile, DispatchPlan, WORKGROUP, fold};
use crate::shader::{Access, BackwardParamsShader, ReduceShader, Shader, WriteMode};
use crate::tensor::{Operand, Role, Tensor};

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
    /// `[h, w]` as forward saved them: T x (rank + experts), f32.
    pub saved: Tensor<'a>,
    /// `[dh, dl]` as the input's backward wrote them: T x (rank + experts), f32.
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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// The dispatches in the order they run: one, or two where the tokens are split. Then the first
    /// writes its gradients to scratch memory, from where the second adds them up.
    pub dispatches: Vec<DispatchPlan>,
    /// Splits of the tokens.
    pub splits: u32,
    /// Bytes of scratch memory: a copy of the gradients for each split; 0 when not split.
    pub scratch_bytes: u64,
}

/// A prepared parameter backward. Recording it costs one dispatch, or two where tokens are split.
#[derive(Debug)]
pub struct BackwardParams {
    dispatches: Vec<Dispatch>,
}

/// Rows of gradients a thread keeps in registers, a vec4 each.
const ROW_CHOICES: [u32; 4] = [16, 12, 8, 4];

/// Fewer tokens than this do not pay for a split's copy of the gradients.
const LEAST_SPLIT_TOKENS: u32 = 64;

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
    /// Plans a parameter backward.
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
        let BackwardParamsOptions { write, x: x_element, g: g_element } = *options;
        let x_access = Access::new("x", x_element, config.d_in)?;
        let g_access = Access::new("g", g_element, config.d_out)?;
        let layout = check_tokens(config, tokens)?;
        let limits = &device.limits;
        let (in_blocks, out_blocks) =
            (groups(config.d_in).div_ceil(WORKGROUP), groups(config.d_out).div_ceil(WORKGROUP));
        let expand_rows = config.rank * config.experts;
        let blocks = |rows: u32| {
            (in_blocks * config.shrink_rows().div_ceil(rows), out_blocks * expand_rows.div_ceil(rows))
        };
        // Each block reads x or g once: as few blocks as possible, then as few idle rows.
        let rows = ROW_CHOICES
            .into_iter()
            .min_by_key(|&rows| {
                let (shrink, expand) = blocks(rows);
                (shrink + expand, rows)
            })
            .unwrap_or(ROW_CHOICES[0]);
        let (shrink_blocks, expand_blocks) = blocks(rows);
        let latent_blocks = match config.router {
            Router::Input => 0,
            Router::Latent => groups(config.rank).div_ceil(WORKGROUP) * config.experts.div_ceil(rows),
        };
        let end = shrink_blocks + expand_blocks + latent_blocks;
        let [x, z] = fold("backward_params", end, limits)?;

        // Never more splits than one binding holds copies of the gradients.
        let most_splits = (tokens / LEAST_SPLIT_TOKENS)
            .min((limits.max_storage_buffer_binding_size / layout.bytes()).min(u64::from(u32::MAX)) as u32)
            .clamp(1, limits.max_compute_workgroups_per_dimension.max(1));
        // A thread loops over a split's tokens, and once for each stage and what it stages.
        let most_split_tokens = (device.max_loop_iterations / 2).clamp(1, u64::from(u32::MAX)) as u32;
        let least_splits = tokens.div_ceil(most_split_tokens);
        device.check_loops(
            "backward_params",
            2 * u64::from(tokens.div_ceil(most_splits)),
            "process fewer tokens at a time",
        )?;
        let split_tokens = tokens.div_ceil((device.busy_workgroups / end).clamp(least_splits, most_splits));
        let splits = tokens.div_ceil(split_tokens);
        let dims = Dims {
            tokens,
            d_in: config.d_in,
            d_out: config.d_out,
            split_tokens,
            expand_start: shrink_blocks,
            latent_start: shrink_blocks + expand_blocks,
            end,
            scaling: config.scaling,
        };
        let outer = |write| {
            let shader = Shader::BackwardParams(BackwardParamsShader {
                rank: config.rank,
                experts: config.experts,
                router: config.router,
                rows,
                x: x_access,
                g: g_access,
                write,
            });
            DispatchPlan::new(shader, &dims, [x, splits, z], device)
        };
        if splits == 1 {
            return Ok(Self { dispatches: vec![outer(write)?], splits, scratch_bytes: 0 });
        }
        let groups = (layout.len() / 4) as u32;
        let [x, y] = fold("backward_params_reduce", groups.div_ceil(WORKGROUP), limits)?;
        let reduce = Shader::BackwardParamsReduce(ReduceShader { write });
        let reduce = DispatchPlan::new(reduce, &ReduceDims { groups, splits }, [x, y, 1], device)?;
        Ok(Self {
            dispatches: vec![outer(WriteMode::Overwrite)?, reduce],
            splits,
            scratch_bytes: u64::from(splits) * layout.bytes(),
        })
    }
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
        let outer = |output: &Operand<'_>| {
            let operands: Vec<_> = inputs.iter().chain([output]).cloned().collect();
            kernels.dispatch(&plan.dispatches[0], &operands)
        };
        let [_, reduce] = &plan.dispatches[..] else {
            return Ok(Self { dispatches: vec![outer(&gradients)?] });
        };
        let owned;
        let scratch = if let Some(scratch) = scratch {
            scratch
        } else {
            owned = kernels.scratch("hydralora backward_params scratch", plan.scratch_bytes)?;
            Tensor::from(&owned)
        };
        let copies = |role| Operand::vector("scratch", role, scratch, plan.scratch_bytes / 4).only_f32();
        Ok(Self {
            dispatches: vec![
                outer(&copies(Role::Write))?,
                kernels.dispatch(reduce, &[copies(Role::Read), gradients])?,
            ],
        })
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
        let plan = BackwardParamsPlan::new(&CONFIG, 256, &options, &profile()).expect("it fits");
        let [outer, reduce] = &plan.dispatches[..] else { panic!("256 tokens are split") };
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
