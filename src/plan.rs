//! From shape, token count and device limits to tile sizes and grids. Pure: no device is needed.

use bytemuck::Pod;

use crate::config::{Config, Router};
use crate::error::Error;
use crate::shader::{BindingKind, Shader, Source};

/// What a plan needs to know of a device.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceProfile {
    /// The limits the device was requested with.
    pub limits: wgpu::Limits,
    /// Workgroups that keep the device busy. Few tokens are spread over output slices, and parameter
    /// gradients over token splits, until about this many are in flight.
    pub busy_workgroups: u32,
    /// Loop iterations that a thread may run, over all loops of a shader together: what some drivers
    /// end all loops after. Loops of few and constant iterations are unrolled and do not count.
    pub max_loop_iterations: u64,
}

/// Mesa's llvmpipe ends every loop of a shader after this many iterations in all
/// (`LP_MAX_TGSI_LOOP_ITERATIONS`), and says nothing: results would be wrong.
const LLVMPIPE_LOOP_ITERATIONS: u64 = 65_535;

impl DeviceProfile {
    /// A device with these limits and no bound on loops.
    #[must_use]
    pub fn new(limits: wgpu::Limits, busy_workgroups: u32) -> Self {
        Self { limits, busy_workgroups, max_loop_iterations: u64::MAX }
    }

    /// The profile of a device.
    #[must_use]
    pub fn of(device: &wgpu::Device) -> Self {
        let info = device.adapter_info();
        let busy_workgroups = match info.device_type {
            // A software driver runs a workgroup per core: more slices only repeat work.
            wgpu::DeviceType::Cpu => 8,
            wgpu::DeviceType::IntegratedGpu => 64,
            _ => 256,
        };
        let max_loop_iterations =
            if info.name.contains("llvmpipe") { LLVMPIPE_LOOP_ITERATIONS } else { u64::MAX };
        Self { max_loop_iterations, ..Self::new(device.limits(), busy_workgroups) }
    }

    /// Refuses a kernel whose threads run more loop iterations than the driver lets them.
    pub(crate) fn check_loops(&self, kernel: &str, iterations: u64, fix: &'static str) -> Result<(), Error> {
        Error::check_limit(
            format_args!("{kernel} (loop iterations in a thread)"),
            "driver's bound on loops",
            iterations,
            self.max_loop_iterations,
            fix,
        )
    }
}

/// One dispatch as planned: everything but the tensors that are bound to it, which the shader's
/// [`Source`](crate::shader::Source) names in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DispatchPlan {
    /// The shader, as a key to warm the pipeline cache with.
    pub shader: Shader,
    /// What the uniform buffer, binding 0, holds.
    pub uniform: Vec<u8>,
    /// Workgroups in each dimension.
    pub grid: [u32; 3],
}

impl DispatchPlan {
    pub(crate) fn new(
        shader: Shader,
        uniform: &impl Pod,
        grid: [u32; 3],
        device: &DeviceProfile,
    ) -> Result<Self, Error> {
        let Source { label, bindings, .. } = shader.source();
        let storage = bindings.iter().filter(|binding| binding.kind != BindingKind::Uniform).count();
        Error::check_limit(
            format_args!("{label} (storage buffers)"),
            "max_storage_buffers_per_shader_stage",
            storage as u64,
            u64::from(device.limits.max_storage_buffers_per_shader_stage),
            "request a device with the adapter's limit",
        )?;
        Error::check_limit(
            format_args!("{label} (threads in a workgroup)"),
            "max_compute_invocations_per_workgroup",
            u64::from(WORKGROUP),
            u64::from(device.limits.max_compute_invocations_per_workgroup),
            "request a device with compute shaders",
        )?;
        Ok(Self { shader, uniform: bytemuck::bytes_of(uniform).to_vec(), grid })
    }
}

/// Threads in every workgroup: the widest subgroup of today's GPUs.
pub(crate) const WORKGROUP: u32 = 64;

/// Columns of a shrink that one thread keeps in registers, four tokens each.
const MOST_COLUMNS: u32 = 16;

/// Tokens of an expand that one thread keeps in registers, a vec4 each, in quads.
const MOST_EXPAND_QUADS: u32 = 4;

/// Tile sizes of the fused kernels; `shaders/part/shrink.wgsl` and `shaders/part/expand.wgsl` say
/// what each means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Tokens a workgroup handles, in groups of four.
    pub quads: u32,
    /// Lanes along the inner dimension; `quads * lanes` threads are a workgroup.
    pub lanes: u32,
    /// Columns of a shrink in a pass.
    pub group: u32,
    /// Columns whose sums over lanes go through workgroup memory at a time.
    pub reduce: u32,
    /// Quads of tokens a thread expands at a time.
    pub expand_quads: u32,
}

impl Tile {
    /// Tokens a workgroup handles.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        4 * self.quads
    }
}

/// Iterations of a loop around others: each takes one, and so does finding that the loop is over.
fn looped(iterations: u64, body: u64) -> u64 {
    iterations.saturating_mul(1 + body).saturating_add(1)
}

/// What the tile of a fused kernel depends on.
#[derive(Debug, Clone)]
pub(crate) struct TileProblem {
    /// The kernel, for messages.
    pub(crate) kernel: &'static str,
    pub(crate) tokens: u32,
    /// Columns of the shrink.
    pub(crate) columns: u32,
    /// vec4s per quad of tokens that stay in workgroup memory.
    pub(crate) resident: u64,
    /// vec4s per quad and reduced column besides the lanes' sums.
    pub(crate) per_reduced: u64,
    /// vec4 groups in a row of the source.
    pub(crate) source_groups: u32,
    /// vec4 groups in a row of the target.
    pub(crate) target_groups: u32,
    /// Rows of the expand, in the two loops over them.
    pub(crate) expand_rows: [u32; 2],
    pub(crate) config: Config,
}

/// A fused kernel's tile, slices and grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TilePlan {
    pub(crate) tile: Tile,
    pub(crate) slice_groups: u32,
    pub(crate) grid: [u32; 3],
    /// Bytes of workgroup memory.
    pub(crate) memory: u64,
}

impl TileProblem {
    fn memory(&self, tile: &Tile) -> u64 {
        let reduce = u64::from(tile.reduce);
        16 * u64::from(tile.quads)
            * (reduce * u64::from(tile.lanes) + self.resident + self.per_reduced * reduce)
    }

    /// Loop iterations of a thread's shrink and of the step for each token, at most: all but those of
    /// the innermost loops over registers, which have to be unrolled to be registers.
    fn iterations_before_expand(&self, tile: &Tile) -> u64 {
        let rounds = |items: u32| u64::from(items.div_ceil(WORKGROUP));
        let Config { rank, experts, router, .. } = self.config;
        let (state, backward) = (rank + experts, self.per_reduced > 0);
        let [group, reduce, lanes] = [tile.group, tile.reduce, tile.lanes].map(u64::from);
        let sums = looped(reduce, 0) + looped(rounds(tile.reduce * tile.quads), looped(lanes, 0));
        // Over dh and over dw; forward has nothing to absorb.
        let absorb = if backward {
            looped(rounds(state * tile.quads), looped(reduce, 0) + looped(reduce, 0))
        } else {
            0
        };
        let along = looped(u64::from(self.source_groups.div_ceil(tile.lanes)), 0);
        let chunks = looped(group / reduce, sums + absorb);
        let shrink = looped(u64::from(self.columns.div_ceil(tile.group)), looped(group, 0) + along + chunks);
        let [ranks, all_experts] = [rank, experts].map(|n| looped(u64::from(n), 0));
        let route = match router {
            Router::Input => 0,
            Router::Latent if backward => looped(rounds(rank * tile.quads), all_experts),
            Router::Latent => looped(rounds(experts * tile.quads), ranks),
        };
        let state = looped(rounds(state * tile.tokens()), 0) + looped(rounds(state * tile.quads), 0);
        shrink + route + 3 * all_experts + state
    }

    /// Loop iterations of a thread's expand, for each group of outputs it owns.
    fn iterations_per_round(&self, tile: &Tile) -> u64 {
        let [outer, inner] = self.expand_rows.map(u64::from);
        let tokens = looped(4 * u64::from(tile.expand_quads), 0);
        let rows = looped(outer, looped(inner, 0));
        looped(u64::from(tile.quads / tile.expand_quads), looped(1, 2 * tokens + rows))
    }

    /// The largest tile that the tokens fill and the workgroup memory holds.
    pub(crate) fn plan(&self, device: &DeviceProfile) -> Result<TilePlan, Error> {
        let limits = &device.limits;
        let allowed = u64::from(limits.max_compute_workgroup_storage_size);
        let passes = self.columns.div_ceil(MOST_COLUMNS);
        let group = self.columns.div_ceil(passes);
        // A tile is at most twice as long as the tokens that fill it.
        let most_quads = match self.tokens {
            0..=4 => 1,
            5..=15 => 2,
            16..=127 => 4,
            _ => 8,
        };
        let mut least_memory = u64::MAX;
        for quads in [8, 4, 2, 1].into_iter().filter(|&quads| quads <= most_quads) {
            for reduce in (1..=group).rev().filter(|&reduce| group.is_multiple_of(reduce)) {
                let tile = Tile {
                    quads,
                    lanes: WORKGROUP / quads,
                    group,
                    reduce,
                    expand_quads: quads.min(MOST_EXPAND_QUADS),
                };
                let memory = self.memory(&tile);
                least_memory = least_memory.min(memory);
                if memory <= allowed {
                    return self.slice(tile, memory, device);
                }
            }
        }
        Err(Error::OverLimit {
            what: format!("{} workgroup memory (bytes, at the smallest tile)", self.kernel),
            limit: "max_compute_workgroup_storage_size",
            needed: least_memory,
            allowed,
            fix: "use a smaller rank or fewer experts, or request a device with the adapter's limit",
        })
    }

    fn slice(&self, tile: Tile, memory: u64, device: &DeviceProfile) -> Result<TilePlan, Error> {
        let tiles = self.tokens.div_ceil(tile.tokens());
        let most_slices = self.target_groups.div_ceil(WORKGROUP);
        // Each slice's expand takes its share of the loop iterations, and none of the others.
        let before_expand = self.iterations_before_expand(&tile);
        let per_round = self.iterations_per_round(&tile);
        device.check_loops(
            self.kernel,
            before_expand.saturating_add(per_round),
            "use a smaller rank or fewer experts, or another driver",
        )?;
        let most_rounds = (device.max_loop_iterations - before_expand) / per_round;
        let least_slices = u64::from(most_slices).div_ceil(most_rounds) as u32;
        let slices = (device.busy_workgroups / tiles).clamp(least_slices, most_slices);
        let slice_groups = self.target_groups.div_ceil(slices).next_multiple_of(WORKGROUP);
        let [y, z] = fold(self.kernel, tiles, &device.limits)?;
        Ok(TilePlan { tile, slice_groups, grid: [self.target_groups.div_ceil(slice_groups), y, z], memory })
    }
}

/// Spreads `count` workgroups over two dimensions of the grid; the product may exceed `count` by
/// less than the second dimension, so kernels check their index.
pub(crate) fn fold(kernel: &'static str, count: u32, limits: &wgpu::Limits) -> Result<[u32; 2], Error> {
    let most = limits.max_compute_workgroups_per_dimension.max(1);
    let second = count.div_ceil(most).max(1);
    Error::check_limit(
        format_args!("{kernel}'s grid (workgroups, folded over two dimensions)"),
        "max_compute_workgroups_per_dimension",
        u64::from(second),
        u64::from(most),
        "process fewer tokens at a time",
    )?;
    Ok([count.div_ceil(second).max(1), second])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Shapes and devices, small and large, with and without a bound on loops.
    fn problems() -> impl Strategy<Value = (TileProblem, DeviceProfile)> {
        let config = (1u32..20_000, 1u32..20_000, 1u32..80, 1u32..20, any::<[bool; 2]>());
        let device =
            (prop::sample::select(&[16_352u32, 16_384, 32_768, 65_536][..]), 1u32..2000, any::<bool>());
        (config, device, 1u32..1_000_000).prop_map(
            |((d_in, d_out, rank, experts, [latent, backward]), device, tokens)| {
                let router = if latent { Router::Latent } else { Router::Input };
                let config = Config { d_in, d_out, rank, experts, scaling: 1.0, router };
                let problem = TileProblem {
                    kernel: "test",
                    tokens,
                    columns: if backward { rank * experts } else { config.shrink_rows() },
                    resident: u64::from(config.state_len()) * if backward { 2 } else { 1 },
                    per_reduced: u64::from(backward),
                    source_groups: d_in.div_ceil(4),
                    target_groups: d_out.div_ceil(4),
                    expand_rows: if backward { [1, config.shrink_rows()] } else { [experts, rank] },
                    config,
                };
                let (memory, busy, llvmpipe) = device;
                let limits =
                    wgpu::Limits { max_compute_workgroup_storage_size: memory, ..wgpu::Limits::default() };
                let max_loop_iterations = if llvmpipe { LLVMPIPE_LOOP_ITERATIONS } else { u64::MAX };
                (problem, DeviceProfile { max_loop_iterations, ..DeviceProfile::new(limits, busy) })
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_output_is_covered_once_and_limits_hold((problem, device) in problems()) {
            let plan = match problem.plan(&device) {
                Ok(plan) => plan,
                // All fit any device's memory, but many rows may take more loops than llvmpipe allows.
                Err(error) => {
                    let refused = matches!(error, Error::OverLimit { limit: "driver's bound on loops", .. });
                    prop_assert!(refused && device.max_loop_iterations < u64::MAX, "{error}");
                    return Ok(());
                }
            };
            let TilePlan { tile, slice_groups, grid: [slices, y, z], memory } = plan;
            // Slices: all but the last are full, and the last is not empty.
            prop_assert!((slices - 1) * slice_groups < problem.target_groups);
            prop_assert!(slices * slice_groups >= problem.target_groups);
            prop_assert_eq!(slice_groups % WORKGROUP, 0);
            // Tiles, folded: none is missing, and a row of spare ones at most is skipped.
            let tiles = problem.tokens.div_ceil(tile.tokens());
            prop_assert!(y * z >= tiles && y * z - tiles < z);
            // The shrink's columns are covered by whole groups, and groups by whole chunks.
            prop_assert_eq!(tile.group % tile.reduce, 0);
            prop_assert!(problem.columns.div_ceil(tile.group) * tile.group >= problem.columns);
            prop_assert_eq!(tile.quads * tile.lanes, WORKGROUP);
            prop_assert_eq!(tile.quads % tile.expand_quads, 0);

            prop_assert!(memory <= u64::from(device.limits.max_compute_workgroup_storage_size));
            let most = device.limits.max_compute_workgroups_per_dimension;
            prop_assert!(slices <= most && y <= most && z <= most);
            let rounds = u64::from(slice_groups.min(problem.target_groups).div_ceil(WORKGROUP));
            let iterations = problem.iterations_before_expand(&tile) + rounds * problem.iterations_per_round(&tile);
            prop_assert!(iterations <= device.max_loop_iterations);
        }
    }
}
