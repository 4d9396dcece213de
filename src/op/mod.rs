//! The operations: each is planned, prepared once against the caller's buffers, and then recorded
//! any number of times into the caller's compute passes.
//!
//! Preparing checks everything and may compile a pipeline; encoding allocates nothing, submits
//! nothing and cannot fail.

mod adamw;
mod backward_input;
mod backward_params;
mod forward;
mod linear;

pub use adamw::{AdamW, AdamWDescriptor, AdamWHyper, AdamWPlan, AdamWStatus};
pub use backward_input::{BackwardInput, BackwardInputDescriptor, BackwardInputOptions, BackwardInputPlan};
pub use backward_params::{
    BackwardParams, BackwardParamsDescriptor, BackwardParamsOptions, BackwardParamsPlan,
};
pub use forward::{Forward, ForwardDescriptor, ForwardOptions, ForwardPlan};
pub use linear::{Linear, LinearDescriptor, LinearOptions, LinearPlan};

use bytemuck::{Pod, Zeroable};

use crate::config::Config;
use crate::element::Element;
use crate::error::{Error, Limit};
use crate::layout::Layout;
use crate::pipeline::{Dispatch, Kernels};
use crate::plan::{DeviceProfile, DispatchPlan, FEWER_TOKENS, FusedPlacement, FusedProblem, ShrinkPlacement};
use crate::shader::{Access, Shader, ShrinkFrom, ShrinkShader};
use crate::tensor::{MOST_BYTES, Operand, Role, Tensor, check_operands};

/// The uniform of the fused kernels (`struct Dims` in `part/fused.wgsl`).
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct FusedDims {
    tokens: u32,
    d_in: u32,
    d_out: u32,
    slice_groups: u32,
    scaling: f32,
    experts: u32,
    shrink_rows: u32,
}

impl FusedDims {
    fn new(config: &Config, tokens: u32, slice_groups: u32) -> Self {
        let Config { d_in, d_out, scaling, experts, .. } = *config;
        Self { tokens, d_in, d_out, slice_groups, scaling, experts, shrink_rows: config.shrink_rows() }
    }
}

/// The uniform of `shrink.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct ShrinkDims {
    tokens: u32,
    source_width: u32,
    matrix: u32,
    split_groups: u32,
}

/// A fused kernel's dispatches, planned: itself, and before it the shrink's own, where it has one.
struct FusedDispatches<'a> {
    problem: &'a FusedProblem,
    placed: &'a FusedPlacement,
    /// x or g, and how wide it is.
    source: Access,
    source_width: u32,
    parameters: Element,
    device: &'a DeviceProfile,
}

impl FusedDispatches<'_> {
    /// `fused` is the kernel's shader, given where its shrink comes from.
    fn plan(&self, fused: impl FnOnce(ShrinkFrom) -> Shader) -> Result<Vec<DispatchPlan>, Error> {
        let Self { problem, placed, source, source_width, parameters, device } = *self;
        let mut dispatches = Vec::new();
        let from = match placed.shrink {
            None => ShrinkFrom::Rows(source),
            Some(ShrinkPlacement { tile, splits, split_groups, grid, .. }) => {
                let shader = ShrinkShader { columns: problem.columns, tile, source, parameters };
                let (tokens, matrix) = (problem.tokens, problem.shrink_matrix);
                let dims = ShrinkDims { tokens, source_width, matrix, split_groups };
                dispatches.push(DispatchPlan::new(Shader::Shrink(shader), &dims, grid, device)?);
                ShrinkFrom::Sums(splits)
            }
        };
        let dims = FusedDims::new(&problem.config, problem.tokens, placed.slice_groups);
        dispatches.push(DispatchPlan::new(fused(from), &dims, placed.grid, device)?);
        Ok(dispatches)
    }
}

/// Binds a fused kernel's dispatches. The operands are those of the one that does all; where there are two,
/// the first reads the source and the parameters, and the second has the first one's sums for its source.
fn prepare_fused(
    kernels: &Kernels,
    plans: &[DispatchPlan],
    scratch_bytes: u64,
    operands: &[Operand<'_>],
) -> Result<Vec<Dispatch>, Error> {
    let [shrink, fused] = plans else {
        return plans.iter().map(|plan| kernels.dispatch(plan, operands)).collect();
    };
    // Whether all of them go together no longer depends on how many dispatches there are.
    check_operands(operands, &kernels.profile().limits)?;
    let scratch = kernels.scratch("hydralora shrink sums", scratch_bytes)?;
    let sums = |role| Operand::vector("sums", role, Tensor::from(&scratch), scratch_bytes / 4).only_f32();
    let first = [operands[0].clone(), operands[1].clone(), sums(Role::Write)];
    let rest: Vec<_> = [sums(Role::Read)].into_iter().chain(operands[1..].iter().cloned()).collect();
    Ok(vec![kernels.dispatch(shrink, &first)?, kernels.dispatch(fused, &rest)?])
}

/// vec4 groups in a row of `width` elements.
fn groups(width: u32) -> u32 {
    width.div_ceil(4)
}

/// Bytes of a matrix.
fn matrix_bytes(element: Element, rows: u32, width: u32) -> u64 {
    element.bytes().saturating_mul(u64::from(rows)).saturating_mul(u64::from(width))
}

/// Floating-point operations of the products with the shrink and the expand block, without padding.
fn product_flops(config: &Config, tokens: u32) -> u64 {
    let [d_in, d_out, rows] = [config.d_in, config.d_out, config.rank * config.experts].map(u64::from);
    let products = (d_in * u64::from(config.shrink_rows())).saturating_add(d_out * rows);
    (2 * u64::from(tokens)).saturating_mul(products)
}

/// Checks what all operations on tokens share.
fn check_tokens(config: &Config, tokens: u32) -> Result<Layout, Error> {
    let layout = config.layout()?;
    check_matrix(tokens, config.d_in.max(config.d_out).max(config.state_len()))?;
    Ok(layout)
}

/// Refuses tokens that are none, or whose widest matrix has more elements than kernels count.
fn check_matrix(tokens: u32, widest: u32) -> Result<(), Error> {
    Error::check_dimension("tokens", tokens)?;
    Error::check_limit(
        format_args!("{tokens} tokens of {widest} elements"),
        Limit::Elements,
        u64::from(tokens) * u64::from(widest),
        MOST_BYTES / 2,
        if tokens > 1 { FEWER_TOKENS } else { "use a narrower layer" },
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use std::mem::offset_of;

    use super::*;
    use crate::config::Router;
    use crate::plan::DeviceProfile;
    use crate::shader::{Shader, WriteMode};

    pub(crate) const CONFIG: Config =
        Config { d_in: 8, d_out: 8, rank: 2, experts: 2, scaling: 1.0, router: Router::Input };

    pub(crate) fn profile() -> DeviceProfile {
        DeviceProfile::new(wgpu::Limits::default(), 64)
    }

    /// Compares the uniform of a shader with the host's struct, field by field.
    pub(crate) fn assert_uniform(shader: &Shader, size: usize, fields: &[(&str, usize)]) {
        let source = shader.source();
        let module = naga::front::wgsl::parse_str(&source.wgsl).expect("valid WGSL");
        let uniform = module.global_variables.iter().find(|(_, v)| v.space == naga::AddressSpace::Uniform);
        let (_, uniform) = uniform.expect("a uniform");
        let naga::TypeInner::Struct { members, span } = &module.types[uniform.ty].inner else {
            panic!("the uniform of {} is no struct", source.label)
        };
        let members: Vec<_> = members
            .iter()
            .map(|member| (member.name.as_deref().unwrap_or_default(), member.offset as usize))
            .collect();
        assert_eq!(members, fields, "{}", source.label);
        assert_eq!(*span as usize, size, "{}", source.label);
    }

    #[test]
    fn fused_uniforms_match() {
        let write = WriteMode::Overwrite;
        let [x, parameters, y] = [Element::F32; 3];
        let options = ForwardOptions { write, save: true, x, parameters, y };
        let forward = ForwardPlan::new(&CONFIG, 4, &options, &profile()).expect("it fits");
        let options = BackwardInputOptions { g: Element::F32, dx: Some((Element::F32, write)) };
        let backward = BackwardInputPlan::new(&CONFIG, 4, &options, &profile()).expect("it fits");
        for shader in [&forward.dispatches[0].shader, &backward.dispatches[0].shader] {
            assert_uniform(
                shader,
                size_of::<FusedDims>(),
                &[
                    ("tokens", offset_of!(FusedDims, tokens)),
                    ("d_in", offset_of!(FusedDims, d_in)),
                    ("d_out", offset_of!(FusedDims, d_out)),
                    ("slice_groups", offset_of!(FusedDims, slice_groups)),
                    ("scaling", offset_of!(FusedDims, scaling)),
                    ("experts", offset_of!(FusedDims, experts)),
                    ("shrink_rows", offset_of!(FusedDims, shrink_rows)),
                ],
            );
        }
    }
}
