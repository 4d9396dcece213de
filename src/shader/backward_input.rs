//! The text of `shaders/backward_input.wgsl` and its parts.

use super::{Access, Source, WriteMode, fused_builder};
use crate::config::Router;
use crate::plan::Tile;
use crate::tensor::Role;

/// What of an input backward is fixed when its shader is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BackwardInputShader {
    pub(crate) rank: u32,
    pub(crate) experts: u32,
    pub(crate) router: Router,
    pub(crate) tile: Tile,
    pub(crate) g: Access,
    pub(crate) dx: Access,
    pub(crate) write: WriteMode,
}

impl BackwardInputShader {
    pub(super) fn source(&self) -> Source {
        let Self { rank, experts, router, tile, g, dx, write } = *self;
        let shrink_rows = router.shrink_rows(rank, experts);
        fused_builder("backward_input", rank, experts, router, &tile)
            .constant("COLUMNS", rank * experts)
            .constant("OUTER", 1)
            .constant("INNER", shrink_rows)
            .write_mode(write)
            .matrix("g", "dims.d_out", g, Role::Read)
            .buffer(Role::Read)
            .buffer(Role::Read)
            .matrix("dx", "dims.d_in", dx, Role::Write)
            .buffer(Role::Write)
            .text(include_str!("../../shaders/backward_input.wgsl"))
            .text(include_str!("../../shaders/part/shrink.wgsl"))
            .text(include_str!("../../shaders/part/expand.wgsl"))
            .text(match router {
                Router::Input => include_str!("../../shaders/part/router_input_backward.wgsl"),
                Router::Latent => include_str!("../../shaders/part/router_latent_backward.wgsl"),
            })
            .build()
    }
}
