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

pub(crate) use adamw::gradient_norm_source;
pub use adamw::{AdamW, AdamWDescriptor, AdamWHyper, AdamWPlan, AdamWShader};
pub use backward_input::{BackwardInput, BackwardInputDescriptor, BackwardInputPlan, BackwardInputShader};
pub use backward_params::{
    BackwardParams, BackwardParamsDescriptor, BackwardParamsPlan, BackwardParamsShader, ReduceShader,
};
pub use forward::{Forward, ForwardDescriptor, ForwardPlan, ForwardShader};
pub use linear::{Linear, LinearDescriptor, LinearDirection, LinearPlan, LinearShader};

use bytemuck::{Pod, Zeroable};

use crate::config::{Config, Router};
use crate::plan::Tile;
use crate::shader::Builder;

/// The uniform of the fused kernels (`struct Dims` in forward.wgsl and backward_input.wgsl).
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
struct FusedDims {
    tokens: u32,
    d_in: u32,
    d_out: u32,
    slice_groups: u32,
    scaling: f32,
}

/// The constants that the fused kernels share.
fn fused_constants(builder: Builder, rank: u32, experts: u32, router: Router, tile: &Tile) -> Builder {
    let shrink_rows = match router {
        Router::Input => rank + experts,
        Router::Latent => rank,
    };
    builder
        .constant("RANK", rank)
        .constant("EXPERTS", experts)
        .constant("STATE", rank + experts)
        .constant("SHRINK_ROWS", shrink_rows)
        .constant("QUADS", tile.quads)
        .constant("TILE_TOKENS", tile.tokens())
        .constant("LANES", tile.lanes)
        .constant("GROUP", tile.group)
        .constant("REDUCE", tile.reduce)
        .constant("EXPAND_QUADS", tile.expand_quads)
}

/// vec4 groups in a row of `width` elements.
fn groups(width: u32) -> u32 {
    width.div_ceil(4)
}

/// Checks what all operations on tokens share.
fn check_tokens(config: &Config, tokens: u32) -> Result<crate::layout::Layout, crate::error::Error> {
    crate::error::Error::check_dimension("tokens", tokens)?;
    config.layout()
}
