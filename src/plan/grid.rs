//! The workgroups of a dispatch.

use crate::error::{Error, Limit};

/// Workgroups in each dimension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
pub enum Grid {
    /// The same workgroups for any number of tokens.
    Fixed([u32; 3]),
    /// One workgroup or several along x for each tile of tokens.
    Tiles {
        /// Workgroups along x for each tile.
        x: u32,
        /// Tokens in a tile.
        tile: u32,
        /// The most tiles along y. More tiles are folded over z.
        most: u32,
        /// The first tile: not 0 where the work is more than one dispatch may do.
        first: u32,
        /// The most tiles from the first one on.
        count: u32,
    },
}

impl Grid {
    /// The tiles of up to `tokens` tokens.
    pub(crate) fn tiles(
        kernel: &'static str,
        x: u32,
        tile: u32,
        tokens: u32,
        limits: &wgpu::Limits,
        fix: &'static str,
    ) -> Result<Self, Error> {
        fold(kernel, tokens.div_ceil(tile), limits, fix)?;
        let most = limits.max_compute_workgroups_per_dimension.max(1);
        Ok(Self::Tiles { x, tile, most, first: 0, count: u32::MAX })
    }

    /// Divides the tiles of up to `tokens` tokens into at least `parts` grids, as far as there are as many tiles:
    /// each with its first tile. No grid of several is folded, so none reaches into the next.
    pub(crate) fn divided(self, tokens: u32, parts: u64) -> Vec<(u32, Self)> {
        let Self::Tiles { x, tile, most, .. } = self else { return vec![(0, self)] };
        if parts <= 1 {
            return vec![(0, self)];
        }
        let tiles = tokens.div_ceil(tile);
        let count = share(tiles, parts).min(most);
        let firsts = (0..tiles).step_by(count as usize);
        firsts.map(|first| (first, Self::Tiles { x, tile, most, first, count })).collect()
    }

    /// The workgroups for `tokens` tokens: at least one token, and no more than were planned for. None if the
    /// first tile is past the last token.
    #[must_use]
    pub fn at(&self, tokens: u32) -> [u32; 3] {
        match *self {
            Self::Fixed(grid) => grid,
            Self::Tiles { x, tile, most, first, count } => {
                let tiles = tokens.div_ceil(tile);
                if tiles <= first {
                    return [0; 3];
                }
                let [y, z] = folded((tiles - first).min(count), most);
                [x, y, z]
            }
        }
    }
}

/// The most of `count` things that one of `parts` parts has.
pub(crate) fn share(count: u32, parts: u64) -> u32 {
    u64::from(count).div_ceil(parts.max(1)).max(1) as u32
}

/// Folds `count` workgroups over two dimensions of the grid. The product may exceed `count` by less than the
/// second dimension, so kernels check their index.
pub(crate) fn fold(
    kernel: &'static str,
    count: u32,
    limits: &wgpu::Limits,
    fix: &'static str,
) -> Result<[u32; 2], Error> {
    let most = limits.max_compute_workgroups_per_dimension;
    let [first, second] = folded(count, most.max(1));
    Error::check_limit(
        format_args!("{kernel}'s grid (workgroups, folded over two dimensions)"),
        Limit::ComputeWorkgroupsPerDimension,
        u64::from(second),
        u64::from(most),
        fix,
    )?;
    Ok([first, second])
}

fn folded(count: u32, most: u32) -> [u32; 2] {
    let second = count.div_ceil(most).max(1);
    [count.div_ceil(second).max(1), second]
}
