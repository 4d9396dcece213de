//! The parts of `shaders/backward_params.wgsl` and of `backward_params_reduce.wgsl`.

use super::{Access, Parts, WriteMode};
use crate::config::Router;
use crate::plan::WORKGROUP;
use crate::tensor::Role;

/// Coefficients staged in workgroup memory at a time: one vec4 for each thread.
const STAGED: u32 = 4 * WORKGROUP;

/// What of a parameter backward is fixed when its shader is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackwardParamsShader {
    pub(crate) rank: u32,
    pub(crate) experts: u32,
    pub(crate) router: Router,
    pub(crate) rows: u32,
    pub(crate) x: Access,
    pub(crate) g: Access,
    pub(crate) write: WriteMode,
}

/// What of the splits' reduction is fixed when its shader is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReduceShader {
    pub(crate) write: WriteMode,
}

impl BackwardParamsShader {
    pub(super) fn parts(&self) -> Parts {
        let Self { rank, experts, router, rows, x, g, write } = *self;
        let latent_rows = match router {
            Router::Input => 0,
            Router::Latent => experts,
        };
        let outer = |tensor| include_str!("../../shaders/part/outer.wgsl").replace("TENSOR", tensor);
        Parts::new("backward_params", "dims")
            .constant("RANK", rank)
            .constant("EXPERTS", experts)
            .constant("STATE", rank + experts)
            .constant("SHRINK_ROWS", router.shrink_rows(rank, experts))
            .constant("LATENT_ROWS", latent_rows)
            .constant("ROWS", rows)
            .constant("ROW_QUADS", rows / 4)
            .constant("STAGE_TOKENS", STAGED / rows)
            .write_mode(write)
            .matrix("x", "dims.d_in", x, Role::Read)
            .matrix("g", "dims.d_out", g, Role::Read)
            .buffer("saved", Role::Read)
            .buffer("dstate", Role::Read)
            .buffer("gradients", Role::Write)
            .text(include_str!("../../shaders/backward_params.wgsl"))
            .text(outer("x"))
            .text(outer("g"))
            .text(outer("h"))
    }
}

impl ReduceShader {
    pub(super) fn parts(self) -> Parts {
        Parts::new("backward_params_reduce", "dims")
            .write_mode(self.write)
            .buffer("copies", Role::Read)
            .buffer("gradients", Role::Write)
            .text(include_str!("../../shaders/backward_params_reduce.wgsl"))
    }
}
