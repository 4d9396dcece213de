//! The frozen linear layer: `y = W0 x + bias` and `dx = W0^T g`, a tiled matrix product.

use bytemuck::{Pod, Zeroable};

use super::{check_matrix, groups};
use crate::element::Element;
use crate::error::{Error, Limit};
use crate::pipeline::{Dispatch, Kernels};
use crate::plan::{DeviceProfile, DispatchPlan, FEWER_TOKENS, first_that_runs, fold, halvings};
use crate::shader::linear::{DEPTH, MOST_THREAD_TOKENS, SIDE, THREAD_QUADS};
use crate::shader::{Access, LinearDirection, LinearShader, Shader, WriteMode};
use crate::tensor::{Operand, Role, Tensor};

/// What a frozen linear layer is prepared with.
#[derive(Debug, Clone, Copy)]
pub struct LinearDescriptor<'a> {
    /// Which product.
    pub direction: LinearDirection,
    /// Length of a token's input.
    pub d_in: u32,
    /// Length of a token's output.
    pub d_out: u32,
    /// Number of tokens T.
    pub tokens: u32,
    /// x (forward) or g (backward), of any [`Element`].
    pub source: Tensor<'a>,
    /// W0, `d_out` x `d_in`, row-major, of any [`Element`].
    pub weight: Tensor<'a>,
    /// The bias, `d_out`, f32; only forward takes one.
    pub bias: Option<Tensor<'a>>,
    /// y (forward) or dx (backward), of any [`Element`].
    pub target: Tensor<'a>,
    /// Whether the target is overwritten or added to.
    pub write: WriteMode,
}

/// What of a linear layer is not its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinearOptions {
    /// Whether there is a bias.
    pub bias: bool,
    /// Whether the target is overwritten or added to.
    pub write: WriteMode,
    /// The elements of x or g.
    pub source: Element,
    /// W0's elements.
    pub weight: Element,
    /// The elements of y or dx.
    pub target: Element,
}

/// A linear layer's dispatch, planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinearPlan {
    /// The one dispatch.
    pub dispatch: DispatchPlan,
}

/// What to do where no binding holds the weight.
const SPLIT_LAYER: &str = "request a device with the adapter's limit, store the weight in half precision, \
                           or split the layer by its outputs";

/// A prepared linear layer. Recording it costs one dispatch.
#[derive(Debug)]
pub struct Linear {
    dispatch: Dispatch,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Dims {
    tokens: u32,
    source_width: u32,
    target_width: u32,
}

/// The operation's names for source and target.
fn names(direction: LinearDirection) -> (&'static str, &'static str) {
    match direction {
        LinearDirection::Forward => ("x", "y"),
        LinearDirection::Backward => ("g", "dx"),
    }
}

impl LinearPlan {
    /// Plans a linear layer.
    ///
    /// # Errors
    /// A zero dimension, a bias in backward, half-precision rows that are no multiple of four, or a
    /// shape that does not fit the device's limits.
    pub fn new(
        direction: LinearDirection,
        [d_in, d_out, tokens]: [u32; 3],
        options: &LinearOptions,
        device: &DeviceProfile,
    ) -> Result<Self, Error> {
        let LinearOptions { bias, write, source, weight, target } = *options;
        Error::check_dimension("d_in", d_in)?;
        Error::check_dimension("d_out", d_out)?;
        check_matrix(tokens, d_in.max(d_out))?;
        let (source_width, target_width) = match direction {
            LinearDirection::Forward => (d_in, d_out),
            LinearDirection::Backward if bias => {
                return Err(Error::UnusedTensor { tensor: "bias", reason: "W0^T g has no bias" });
            }
            LinearDirection::Backward => (d_out, d_in),
        };
        let (source_name, target_name) = names(direction);
        let shader = LinearShader {
            direction,
            thread_tokens: 1,
            source: Access::new(source_name, source, source_width)?,
            weight: Access::new("weight", weight, d_in)?,
            target: Access::new(target_name, target, target_width)?,
            bias,
            write,
        };
        let dims = Dims { tokens, source_width, target_width };
        let most_tokens = tokens.div_ceil(SIDE).min(MOST_THREAD_TOKENS).next_power_of_two();
        let thread_tokens: Vec<u32> = halvings(most_tokens).collect();
        // They differ in how many loops compilers unroll, which is not told from here.
        first_that_runs(
            &thread_tokens,
            |_| 1,
            |&thread_tokens| Self::placed(LinearShader { thread_tokens, ..shader }, dims, device),
        )
    }

    fn placed(shader: LinearShader, dims: Dims, device: &DeviceProfile) -> Result<Self, Error> {
        let limits = &device.limits;
        let thread_tokens = shader.thread_tokens;
        let columns = groups(dims.target_width).div_ceil(SIDE * THREAD_QUADS);
        Error::check_limit(
            "linear's grid (blocks of target columns)",
            Limit::ComputeWorkgroupsPerDimension,
            u64::from(columns),
            u64::from(limits.max_compute_workgroups_per_dimension),
            "use a narrower layer",
        )?;
        let [y, z] = fold("linear", dims.tokens.div_ceil(SIDE * thread_tokens), limits, FEWER_TOKENS)?;
        let memory = 16 * u64::from(DEPTH) * u64::from(SIDE * thread_tokens + 4 * SIDE * THREAD_QUADS);
        Error::check_limit(
            "linear workgroup memory (bytes)",
            Limit::ComputeWorkgroupStorageSize,
            memory,
            u64::from(limits.max_compute_workgroup_storage_size),
            "request a device with at least WebGPU's default limits",
        )?;
        Ok(Self { dispatch: DispatchPlan::new(Shader::Linear(shader), &dims, [columns, y, z], device)? })
    }
}

impl Linear {
    /// Checks the tensors, compiles the shader where needed and binds everything.
    ///
    /// # Errors
    /// Every mistake in shapes, tensors and limits, with the numbers; nothing is recorded then.
    pub fn prepare(kernels: &Kernels, descriptor: &LinearDescriptor<'_>) -> Result<Self, Error> {
        let LinearDescriptor { direction, d_in, d_out, tokens, source, weight, bias, target, write } =
            *descriptor;
        let options = LinearOptions {
            bias: bias.is_some(),
            write,
            source: source.element(),
            weight: weight.element(),
            target: target.element(),
        };
        let plan = LinearPlan::new(direction, [d_in, d_out, tokens], &options, kernels.profile())?;
        let (source_name, target_name) = names(direction);
        let (source_width, target_width) = match direction {
            LinearDirection::Forward => (d_in, d_out),
            LinearDirection::Backward => (d_out, d_in),
        };
        let mut operands = vec![
            Operand::matrix(source_name, Role::Read, source, tokens, source_width),
            Operand::matrix("weight", Role::Read, weight, d_out, d_in).or(SPLIT_LAYER),
            Operand::matrix(target_name, Role::Write, target, tokens, target_width),
        ];
        operands
            .extend(bias.map(|bias| Operand::vector("bias", Role::Read, bias, u64::from(d_out)).only_f32()));
        Ok(Self { dispatch: kernels.dispatch(&plan.dispatch, &operands)? })
    }

    /// Dispatches that recording it takes: one.
    #[must_use]
    pub fn dispatches(&self) -> usize {
        1
    }

    /// Records the operation.
    pub fn encode(&self, pass: &mut wgpu::ComputePass<'_>) {
        self.dispatch.encode(pass);
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::op::tests::{assert_uniform, profile};

    #[test]
    fn uniform_matches() {
        let options = LinearOptions {
            bias: true,
            write: WriteMode::Overwrite,
            source: Element::F32,
            weight: Element::F32,
            target: Element::F32,
        };
        let plan = LinearPlan::new(LinearDirection::Forward, [8, 8, 8], &options, &profile());
        let plan = plan.expect("it fits");
        assert_uniform(
            &plan.dispatch.shader,
            size_of::<Dims>(),
            &[
                ("tokens", offset_of!(Dims, tokens)),
                ("source_width", offset_of!(Dims, source_width)),
                ("target_width", offset_of!(Dims, target_width)),
            ],
        );
    }
}
