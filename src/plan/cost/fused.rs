//! The predicted time of forward and `backward_input`.

use super::{EXCHANGE, Phase, SHUFFLE, Traffic, bytes, later_groups, packing, unpacking};
use crate::plan::fused::{FusedPlacement, FusedProblem, ShrinkPlacement};
use crate::plan::{DeviceNumbers, Tile};

/// Rows of the parameters that are loaded before the first of them is used, in the shrink and in the expand.
const LOADED_TOGETHER: u32 = 4;

/// The gate's time, in round trips to the last cache: one thread for each quad of tokens computes it, from
/// workgroup memory.
const GATE: f64 = 3.0;

/// Registers of a thread for indices and addresses.
const INDICES: f64 = 24.0;

/// The part of the last cache that what is read twice may fill.
const REUSED: f64 = 0.8;

impl FusedProblem {
    /// The predicted seconds on a GPU.
    pub(crate) fn seconds(&self, plan: &FusedPlacement, gpu: &DeviceNumbers) -> f64 {
        let tile = &plan.tile;
        let tiles = f64::from(self.tokens.div_ceil(tile.tokens()));
        let slices = f64::from(plan.choice.slices);
        let fused = Phase {
            workgroups: tiles * slices,
            threads: f64::from(tile.threads()),
            workgroup_memory: plan.memory as f64,
            ..Phase::default()
        };
        let shrink = match &plan.shrink {
            Some(alone) => {
                self.shrink_alone(alone, tiles, gpu) + gpu.gap + self.add_splits(fused, alone, gpu)
            }
            None => self.shrink(fused, tile, gpu),
        };
        gpu.launch + shrink + self.between(fused, tile, gpu) + self.expand(fused, plan, gpu)
    }

    /// A separate shrink: all passes and splits side by side.
    fn shrink_alone(&self, shrink: &ShrinkPlacement, tiles: f64, gpu: &DeviceNumbers) -> f64 {
        let ShrinkPlacement { tile, splits, split_vecs, sums, .. } = shrink;
        let passes = f64::from(self.columns.div_ceil(tile.pass_columns));
        let workgroups = tiles * passes * f64::from(*splits);
        let threads = f64::from(tile.threads());
        let alone = Phase {
            workgroups,
            threads,
            workgroup_memory: 16.0 * f64::from(tile.scratch),
            ..Phase::default()
        };
        let rows = Phase {
            iterations: f64::from(split_vecs.div_ceil(tile.lanes)),
            cached: (passes - 1.0) * self.source_bytes() + *sums as f64,
            memory: self.source_bytes() + self.matrix_bytes(self.columns, self.source_vecs),
            ..self.shrink_step(alone, tile, gpu.loaded_latency(), gpu)
        };
        rows.seconds(gpu) + add_lanes(alone, tile, 1, tile.pass_columns, gpu)
    }

    /// The shrink of a single dispatch: one pass after the other, in every slice.
    fn shrink(&self, fused: Phase, tile: &Tile, gpu: &DeviceNumbers) -> f64 {
        let together = tile.groups * tile.pass_columns;
        let passes = self.columns.div_ceil(together);
        let tiles = f64::from(self.tokens.div_ceil(tile.tokens()));
        let slices = fused.workgroups / tiles;
        let first = Phase {
            iterations: f64::from(self.source_vecs.div_ceil(tile.lanes)),
            cached: (slices - 1.0) * self.source_bytes(),
            memory: self.source_bytes() + self.matrix_bytes(together, self.source_vecs),
            ..self.shrink_step(fused, tile, gpu.loaded_latency(), gpu)
        };
        // What a later pass reads again is in the last cache if all tiles that are resident fit it.
        let (resident, _) = fused.occupancy(gpu);
        let resident = (resident * f64::from(gpu.cores)).min(fused.workgroups) / slices;
        let kept = resident / tiles * self.source_bytes() < REUSED * gpu.cache_bytes;
        let matrix = self.matrix_bytes(together, self.source_vecs);
        let later = if kept {
            let step = self.shrink_step(fused, tile, gpu.cache_latency, gpu);
            let cached = slices * self.source_bytes();
            Phase { iterations: first.iterations, cached, memory: matrix, ..step }
        } else {
            first
        };
        first.seconds(gpu)
            + f64::from(passes - 1) * later.seconds(gpu)
            + add_lanes(fused, tile, passes, tile.summed_columns, gpu)
    }

    /// A step along the inner dimension: four tokens of the source, and all columns of the pass.
    fn shrink_step(&self, phase: Phase, tile: &Tile, source_latency: f64, gpu: &DeviceNumbers) -> Phase {
        let Traffic { source, matrix, .. } = self.traffic;
        let columns = f64::from(tile.pass_columns);
        Phase {
            registers: 4.0 * columns
                + 16.0
                + 4.0 * f64::from(LOADED_TOGETHER.min(tile.pass_columns))
                + INDICES,
            chain: source_latency
                + later_groups(tile.pass_columns.div_ceil(LOADED_TOGETHER), gpu.cache_latency),
            instructions: 16.0 * columns + 4.0 * unpacking(source) + columns * unpacking(matrix) + 50.0,
            loaded: phase.threads * (16.0 * bytes(source) + 4.0 * columns * bytes(matrix)),
            shared: f64::from(tile.groups * tile.lanes) * 4.0 * columns * bytes(matrix),
            ..phase
        }
    }

    /// Adding up what the splits of a separate shrink left.
    fn add_splits(&self, fused: Phase, shrink: &ShrinkPlacement, gpu: &DeviceNumbers) -> f64 {
        let items = self.columns * shrink.tile.quads;
        let read = fused.workgroups * 16.0 * f64::from(items * shrink.splits);
        let in_cache = (shrink.sums as f64) < REUSED * gpu.cache_bytes;
        Phase {
            iterations: (f64::from(items) / fused.threads).ceil(),
            chain: gpu.cache_latency
                + later_groups(shrink.splits.div_ceil(LOADED_TOGETHER), gpu.cache_latency),
            instructions: 6.0 * f64::from(shrink.splits) + 10.0,
            cached: read,
            memory: if in_cache { 0.0 } else { shrink.sums as f64 },
            ..fused
        }
        .seconds(gpu)
    }

    /// The gate, and staging coefficients where all fit.
    fn between(&self, fused: Phase, tile: &Tile, gpu: &DeviceNumbers) -> f64 {
        let staged = if self.staged { f64::from(tile.staged_rows * tile.quads) } else { 0.0 };
        Phase {
            iterations: 1.0,
            chain: (GATE + EXCHANGE) * gpu.cache_latency,
            instructions: 20.0 * (staged / fused.threads).ceil(),
            ..fused
        }
        .seconds(gpu)
    }

    fn expand(&self, fused: Phase, plan: &FusedPlacement, gpu: &DeviceNumbers) -> f64 {
        if self.target_vecs == 0 {
            return 0.0;
        }
        let Traffic { matrix, target, accumulate, .. } = self.traffic;
        let tile = &plan.tile;
        let threads = fused.threads;
        let rows = f64::from(self.expand_rows);
        let (quads, tokens) = (f64::from(tile.expand_quads), f64::from(4 * tile.expand_quads));
        let chunks =
            if tile.all_staged { 0.0 } else { f64::from(self.expand_rows.div_ceil(tile.staged_rows)) };
        let read = !plan.choice.broadcast && tile.expand_quads == 1;
        let together = if read { gpu.rows_together.min(LOADED_TOGETHER) } else { LOADED_TOGETHER };
        let groups = self.expand_rows.div_ceil(together.max(1));
        let of_rows = gpu.cache_latency + later_groups(groups, gpu.cache_latency);
        // The sums start with the target, which is on its way while the first rows are read.
        let chain = if accumulate { of_rows.max(gpu.loaded_latency()) } else { of_rows };
        let passes = if accumulate { 2.0 } else { 1.0 };
        let coefficients = if plan.choice.broadcast { 4.0 * quads } else { quads };
        Phase {
            registers: 4.0 * tokens + 4.0 * f64::from(LOADED_TOGETHER) + INDICES,
            iterations: (f64::from(plan.slice_vecs) / threads).ceil()
                * f64::from(tile.quads / tile.expand_quads),
            chain: chain + 2.0 * chunks * EXCHANGE * gpu.cache_latency,
            instructions: rows * (4.0 * tokens + coefficients + unpacking(matrix) + 3.0)
                + tokens * (packing(target) + if accumulate { unpacking(target) } else { 0.0 })
                + 30.0,
            loaded: threads
                * (rows * (4.0 * bytes(matrix) + 16.0 * quads) + passes * 4.0 * tokens * bytes(target)),
            shared: threads * rows * 4.0 * bytes(matrix),
            memory: passes * f64::from(self.tokens) * 4.0 * f64::from(self.target_vecs) * bytes(target)
                + self.matrix_bytes(self.expand_rows, self.target_vecs),
            ..fused
        }
        .seconds(gpu)
    }

    fn source_bytes(&self) -> f64 {
        f64::from(self.tokens) * 4.0 * f64::from(self.source_vecs) * bytes(self.traffic.source)
    }

    /// Bytes of rows of the parameters.
    fn matrix_bytes(&self, rows: u32, row_vecs: u32) -> f64 {
        f64::from(rows) * 4.0 * f64::from(row_vecs) * bytes(self.traffic.matrix)
    }
}

/// Adding up the lanes' sums after each of `passes`, `summed_columns` complete at a time.
fn add_lanes(phase: Phase, tile: &Tile, passes: u32, summed_columns: u32, gpu: &DeviceNumbers) -> f64 {
    let parts = f64::from(tile.lanes / tile.shuffled_lanes);
    let shuffles = f64::from(tile.shuffled_lanes).log2();
    let columns = f64::from(tile.pass_columns * passes);
    let all_columns = f64::from(tile.groups) * columns;
    let exchanges = (all_columns / f64::from(summed_columns)).ceil();
    let items = (f64::from(summed_columns * tile.quads) / phase.threads).ceil();
    let through_memory = if parts > 1.0 { 1.0 } else { 0.0 };
    Phase {
        iterations: 1.0,
        chain: gpu.cache_latency
            * (f64::from(passes) * SHUFFLE * shuffles + exchanges * EXCHANGE * (1.0 + through_memory)),
        instructions: 8.0 * columns * shuffles + through_memory * exchanges * items * 6.0 * parts,
        loaded: through_memory * 16.0 * all_columns * f64::from(tile.quads) * parts,
        ..phase
    }
    .seconds(gpu)
}
