//! Tiles, slices and grid of the fused kernels, forward and `backward_input`.

use super::cost::Traffic;
use super::quirks::{Costs, Quirks, filled};
use super::tile::{check_threads, ways_to_thread};
use super::{Choice, DeviceProfile, FEWER_TOKENS, Grid, MOST_BYTES, Tile, WORKGROUP, halvings};
use crate::error::{Error, Limit};

/// The most columns of a shrink that a thread may keep in registers, four tokens each.
const COLUMNS: [u32; 4] = [16, 8, 4, 2];

/// The groups of lanes that may sum columns of a shrink side by side.
const GROUPS: [u32; 3] = [1, 2, 4];

/// The most quads of tokens of an expand that one thread keeps in registers, a vec4 for each token.
const MOST_EXPAND_QUADS: u32 = 4;

/// The most rows of an expand that are unrolled: enough for their loads to overlap. With twice as many, FXC takes
/// twice as long.
const MOST_STEP: u32 = 8;

/// The longest tile, in quads.
const MOST_QUADS: u32 = 8;

/// The most splits of the inner dimension in a separate shrink. Each leaves partial sums, and all slices add
/// them up.
const MOST_SHRINK_SPLITS: u32 = 16;

/// The choices of a plan of a fused kernel: `forward` or `backward_input`.
///
/// The default is a tile of four tokens with one slice and no separate shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FusedChoice {
    /// Threads of a workgroup: 64, or on GPUs also 128 or 256.
    pub threads: u32,
    /// Tokens of a workgroup, in quads of four: 1, 2, 4 or 8.
    pub quads: u32,
    /// The most columns of a shrink that a thread keeps in registers, four tokens each: 16, or on GPUs also 8, 4
    /// or 2.
    pub columns: u32,
    /// Groups of lanes that sum other columns side by side, so that what they all read is read once: 1, or
    /// with subgroups also 2 or 4.
    pub groups: u32,
    /// Quads of tokens that a thread expands at a time: 1, 2 or 4.
    pub expand_quads: u32,
    /// Columns whose sums are complete at a time: a divisor of the columns in registers if sums go through
    /// workgroup memory, a multiple of them if sums go through subgroups.
    pub summed_columns: u32,
    /// Workgroups that share a tile's outputs. Each repeats the shrink, unless the shrink is a separate
    /// dispatch.
    pub slices: u32,
    /// Workgroups that share a tile's inner dimension in a separate shrink; 0 for a single dispatch without
    /// one.
    pub shrink_splits: u32,
    /// Whether lanes of a subgroup broadcast the expand's coefficients to each other, or each lane reads all
    /// of them.
    pub broadcast: bool,
}

impl Default for FusedChoice {
    fn default() -> Self {
        Self {
            threads: WORKGROUP,
            quads: 1,
            columns: COLUMNS[0],
            groups: 1,
            expand_quads: 1,
            summed_columns: 1,
            slices: 1,
            shrink_splits: 0,
            broadcast: false,
        }
    }
}

/// Refuses a grid that is too wide in its first dimension, which does not fold.
fn check_grid(kernel: &str, workgroups: u32, device: &DeviceProfile) -> Result<(), Error> {
    Error::check_limit(
        format_args!("{kernel}'s grid (workgroups)"),
        Limit::ComputeWorkgroupsPerDimension,
        workgroups.into(),
        device.limits.max_compute_workgroups_per_dimension.into(),
        "use fewer slices and splits, or narrower layers",
    )
}

/// vec4s of workgroup memory in which lanes add their sums. It is free afterwards.
fn scratch_of_sums(summed_columns: u32, quads: u32, lanes: u32, shuffled_lanes: u32) -> u32 {
    match (shuffled_lanes, lanes / shuffled_lanes) {
        (1, _) => summed_columns.saturating_mul(quads * lanes),
        (_, 1) => 1,
        (_, parts) => summed_columns.saturating_mul(quads * parts),
    }
}

/// The inputs of a plan of a fused kernel.
#[derive(Debug, Clone)]
pub(crate) struct FusedProblem {
    /// The kernel, for messages.
    pub(crate) kernel: &'static str,
    pub(crate) tokens: u32,
    /// Columns of the shrink.
    pub(crate) columns: u32,
    /// vec4s per quad of tokens that stay in workgroup memory.
    pub(crate) resident: u64,
    /// vec4s of workgroup memory per quad and summed column, besides the lanes' sums.
    pub(crate) per_summed: u64,
    /// vec4s in a row of the source.
    pub(crate) source_vecs: u32,
    /// vec4s in a row of the target.
    pub(crate) target_vecs: u32,
    /// Rows of the expand.
    pub(crate) expand_rows: u32,
    /// What a step of the expand divides besides: rows after which something else happens; 0 if there are none.
    pub(crate) first_rows: u32,
    /// Whether the coefficients of those rows take the place of the lanes' sums. Otherwise they are resident.
    pub(crate) staged: bool,
    pub(crate) traffic: Traffic,
}

/// The placement of a separate shrink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ShrinkPlacement {
    pub(crate) tile: Tile,
    /// Splits of the inner dimension.
    pub(crate) splits: u32,
    /// vec4s of the inner dimension in one split.
    pub(crate) split_vecs: u32,
    pub(crate) grid: Grid,
    /// Bytes of the sums that it writes.
    pub(crate) sums: u64,
}

/// The placement of a fused kernel: tile, slices and grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FusedPlacement {
    pub(crate) choice: FusedChoice,
    /// The separate shrink before it, if there is one.
    pub(crate) shrink: Option<ShrinkPlacement>,
    pub(crate) tile: Tile,
    pub(crate) slice_vecs: u32,
    pub(crate) grid: Grid,
    /// Bytes of workgroup memory.
    pub(crate) memory: u64,
}

impl FusedProblem {
    /// Columns of a shrink that a thread sums in one pass, of at most `most`, side by side with other groups.
    fn pass_columns(&self, most: u32, groups: u32) -> u32 {
        self.columns.div_ceil(groups * self.columns.div_ceil(groups * most))
    }

    fn tile(&self, choice: &FusedChoice, device: &DeviceProfile) -> Tile {
        let FusedChoice { threads, quads, groups, expand_quads, summed_columns, broadcast, .. } = *choice;
        let (rows, lanes) = (self.expand_rows, threads / (groups * quads));
        let shuffled_lanes = lanes.min(device.shuffled_lanes());
        let sums = if choice.shrink_splits > 0 {
            1
        } else {
            scratch_of_sums(summed_columns, quads, lanes, shuffled_lanes)
        };
        // Stages all coefficients at a time if they fit, and at least as many as the memory of the sums
        // holds.
        let resident = (self.resident + self.per_summed * u64::from(summed_columns)) * u64::from(quads);
        let free =
            (u64::from(device.limits.max_compute_workgroup_storage_size) / 16).saturating_sub(resident);
        let staged = free.clamp(u64::from(sums), u64::from(u32::MAX)) as u32;
        let room = if self.staged { (staged / quads).clamp(1, rows) } else { rows };
        let broadcast_lanes = if broadcast { device.broadcast_lanes() } else { 1 };
        // With 16 tokens in registers, four more rows of M make NVIDIA's compiler take more than 128, and with 256
        // threads a core then holds one workgroup instead of two.
        let most_step = if device.software { MOST_STEP } else { MOST_STEP.min(16 / expand_quads) };
        let most_step =
            if broadcast { (broadcast_lanes / expand_quads).clamp(1, MOST_STEP) } else { most_step };
        let divides = |step: u32| rows.is_multiple_of(step) && self.first_rows.is_multiple_of(step);
        let whole = |most: u32| (1..=most).rev().find(|&step| divides(step)).unwrap_or(1);
        let step = match whole(most_step.min(room)) {
            // A loop of one step is none to a compiler, and it would keep all coefficients in registers.
            step if step == rows && 4 * expand_quads * rows > Quirks::of(device).kept_coefficients => {
                whole(step / 2)
            }
            step => step,
        };
        let staged_rows = room / step * step;
        let scratch = if self.staged { sums.max(staged_rows * quads) } else { sums };
        Tile {
            quads,
            groups,
            lanes,
            pass_columns: self.pass_columns(choice.columns, groups),
            summed_columns,
            shuffled_lanes,
            scratch,
            expand_quads,
            step,
            staged_rows,
            all_staged: staged_rows == rows,
            broadcast_lanes,
        }
    }

    /// Bytes of workgroup memory.
    fn memory(&self, tile: &Tile) -> u64 {
        let resident = self.resident + self.per_summed * u64::from(tile.summed_columns);
        16 * (u64::from(tile.scratch) + u64::from(tile.quads) * resident)
    }

    /// The possible values of `columns` and `groups`: all of `groups` have columns to sum.
    fn ways_to_pass(&self, device: &DeviceProfile) -> impl Iterator<Item = [u32; 2]> {
        let shuffles = device.shuffled_lanes() > 1;
        let passes = Quirks::of(device).passes.iter().copied();
        passes.enumerate().filter_map(move |(at, [columns, groups])| {
            let useful = self.columns > groups * columns / 2 && (groups == 1 || shuffles);
            (at == 0 || useful).then_some([columns, groups])
        })
    }

    /// The possible values of `summed_columns`.
    fn ways_to_sum(&self, columns: u32, groups: u32, device: &DeviceProfile) -> Vec<u32> {
        let pass_columns = self.pass_columns(columns, groups);
        if device.shuffled_lanes() > 1 {
            let round = groups * pass_columns;
            // More columns would not fit, if they take memory at all.
            let most = device.limits.max_compute_workgroup_storage_size / 16;
            let rounds = self.columns.div_ceil(round).min((most / round).max(1));
            return (1..=rounds).map(|rounds| rounds * round).collect();
        }
        (1..=pass_columns).filter(|&summed_columns| pass_columns.is_multiple_of(summed_columns)).collect()
    }

    /// The possible values of `shrink_splits`: 0, and those of a separate shrink if that may pay off. It may
    /// if there are so few tiles that slices would repeat the shrink, or more columns than are complete at a
    /// time.
    fn ways_to_shrink(
        &self,
        threads: u32,
        quads: u32,
        summed_columns: u32,
        device: &DeviceProfile,
    ) -> impl Iterator<Item = u32> {
        let few = self.tokens.div_ceil(4 * quads) <= device.busy_workgroups;
        let most = match (few, summed_columns < self.columns) {
            (true, _) => self.most_shrink_splits(threads),
            (false, true) => 1,
            (false, false) => 0,
        };
        let separate = (most > 0).then(|| halvings(most));
        std::iter::once(0).chain(separate.into_iter().flatten())
    }

    /// Whether a tile is less than twice as long as all tokens, or the shortest.
    fn fills(&self, quads: u32) -> bool {
        quads == 1 || 2 * quads < self.tokens
    }

    /// The possible values of `expand_quads`.
    fn ways_to_expand(&self, quads: u32) -> impl Iterator<Item = u32> {
        halvings(if self.target_vecs > 0 { quads.min(MOST_EXPAND_QUADS) } else { 1 })
    }

    /// The possible values of `broadcast`. Without an expand there are no coefficients to broadcast.
    fn ways_to_coefficients(&self, expand_quads: u32, device: &DeviceProfile) -> &'static [bool] {
        if self.target_vecs > 0 { device.ways_to_coefficients(expand_quads) } else { &[false] }
    }

    fn most_shrink_splits(&self, threads: u32) -> u32 {
        self.source_vecs.div_ceil(threads).min(MOST_SHRINK_SPLITS)
    }

    /// Places a separate shrink.
    fn place_shrink(
        &self,
        choice: FusedChoice,
        tile: Tile,
        device: &DeviceProfile,
    ) -> Result<ShrinkPlacement, Error> {
        let FusedChoice { threads, quads, columns, shrink_splits, .. } = choice;
        // A workgroup sums a single pass of columns, and expands nothing.
        let lanes = threads / quads;
        let shuffled_lanes = lanes.min(device.shuffled_lanes());
        let pass_columns = self.pass_columns(columns, 1);
        let summed_columns = if shuffled_lanes > 1 { pass_columns } else { tile.summed_columns };
        let scratch = scratch_of_sums(summed_columns, quads, lanes, shuffled_lanes);
        let tile = Tile {
            groups: 1,
            lanes,
            shuffled_lanes,
            pass_columns,
            summed_columns,
            scratch,
            expand_quads: 1,
            step: 1,
            staged_rows: 1,
            all_staged: true,
            broadcast_lanes: 1,
            ..tile
        };
        Error::check_limit(
            "shrink workgroup memory (bytes)",
            Limit::ComputeWorkgroupStorageSize,
            16 * u64::from(scratch),
            u64::from(device.limits.max_compute_workgroup_storage_size),
            "request a device with the adapter's limit",
        )?;
        let split_vecs = self.source_vecs.div_ceil(shrink_splits).next_multiple_of(tile.lanes);
        let splits = self.source_vecs.div_ceil(split_vecs);
        let tiles = self.tokens.div_ceil(4 * quads);
        let blocks = self.columns.div_ceil(tile.pass_columns).saturating_mul(splits);
        check_grid("shrink", blocks, device)?;
        let grid = Grid::tiles("shrink", blocks, 4 * quads, self.tokens, &device.limits, FEWER_TOKENS)?;
        let sums =
            [splits, tiles, self.columns, quads].map(u64::from).into_iter().fold(16, u64::saturating_mul);
        let limits = &device.limits;
        let bindable = limits.max_storage_buffer_binding_size.min(MOST_BYTES);
        for (limit, most) in
            [(Limit::BufferSize, limits.max_buffer_size), (Limit::StorageBufferBindingSize, bindable)]
        {
            Error::check_limit("sums of the shrink (bytes)", limit, sums, most, FEWER_TOKENS)?;
        }
        Ok(ShrinkPlacement { tile, splits, split_vecs, grid, sums })
    }

    fn most_slices(&self, threads: u32) -> u32 {
        self.target_vecs.div_ceil(threads)
    }

    /// The choices of all candidates: at least one, the best predicted one first.
    pub(crate) fn choices(&self, device: &DeviceProfile) -> Result<Vec<Choice>, Error> {
        Ok(self.candidates(device)?.iter().map(|placed| Choice::Fused(placed.choice)).collect())
    }

    /// The iterations of a thread's long loops: along the inner dimension, and over the rows of the expand.
    pub(crate) fn rounds(&self, choice: Choice, device: &DeviceProfile) -> u64 {
        let placed = choice.fused(self.kernel).and_then(|choice| self.place(choice, device));
        let Ok(FusedPlacement { tile, shrink, slice_vecs, .. }) = placed else { return u64::MAX };
        let passes = self.columns.div_ceil(tile.groups * tile.pass_columns);
        let along = if shrink.is_some() { 0 } else { self.source_vecs.div_ceil(tile.lanes) };
        let expands = slice_vecs.div_ceil(tile.threads()) * (tile.quads / tile.expand_quads);
        let rows = self.expand_rows.div_ceil(tile.step);
        u64::from(passes) * u64::from(along) + u64::from(expands) * u64::from(rows)
    }

    /// A choice of the tile and its sums, with all ways to go on from there.
    fn ways_to_finish(
        &self,
        choice: FusedChoice,
        device: &DeviceProfile,
    ) -> impl Iterator<Item = FusedChoice> {
        let FusedChoice { threads, quads, summed_columns, .. } = choice;
        self.ways_to_expand(quads).flat_map(move |expand_quads| {
            halvings(self.most_slices(threads)).flat_map(move |slices| {
                self.ways_to_shrink(threads, quads, summed_columns, device).flat_map(move |shrink_splits| {
                    self.ways_to_coefficients(expand_quads, device).iter().map(move |&broadcast| {
                        FusedChoice { expand_quads, slices, shrink_splits, broadcast, ..choice }
                    })
                })
            })
        })
    }

    /// All candidate placements that fit the device's limits: at least one, the best predicted one first.
    pub(crate) fn candidates(&self, device: &DeviceProfile) -> Result<Vec<FusedPlacement>, Error> {
        let allowed = u64::from(device.limits.max_compute_workgroup_storage_size);
        let mut candidates = Vec::new();
        let mut refused = None;
        let mut least_memory = u64::MAX;
        for &threads in ways_to_thread(device) {
            for quads in halvings(MOST_QUADS).filter(|&quads| self.fills(quads)) {
                for [columns, groups] in self.ways_to_pass(device) {
                    let choice = FusedChoice { threads, quads, columns, groups, ..FusedChoice::default() };
                    let memory_of = |summed_columns: u32| {
                        self.memory(&self.tile(&FusedChoice { summed_columns, ..choice }, device))
                    };
                    let ways_to_sum = self.ways_to_sum(columns, groups, device);
                    least_memory = least_memory.min(memory_of(ways_to_sum[0]));
                    // The most columns at a time that fit in the memory, in half of it and in a quarter of it.
                    let mut most_summed = u32::MAX;
                    for memory in [allowed, allowed / 2, allowed / 4] {
                        let fits = |&&summed_columns: &&u32| {
                            summed_columns < most_summed && memory_of(summed_columns) <= memory
                        };
                        let Some(&summed_columns) = ways_to_sum.iter().rev().find(fits) else { continue };
                        most_summed = summed_columns;
                        for choice in self.ways_to_finish(FusedChoice { summed_columns, ..choice }, device) {
                            match self.place(choice, device) {
                                Ok(plan) => candidates.push(plan),
                                Err(error) => refused = refused.or(Some(error)),
                            }
                        }
                    }
                }
            }
        }
        if !candidates.is_empty() {
            return Ok(super::cheapest_first(candidates, |plan| self.cost(plan, device)));
        }
        Err(refused.unwrap_or_else(|| Error::OverLimit {
            what: format!("{} workgroup memory (bytes, at the smallest tile)", self.kernel),
            limit: Limit::ComputeWorkgroupStorageSize,
            needed: least_memory,
            allowed,
            fix: "use a smaller rank or fewer experts, or request a device with the adapter's limit",
        }))
    }

    /// Places the kernel by a choice, if the choice is possible and fits the device.
    pub(crate) fn place(&self, choice: FusedChoice, device: &DeviceProfile) -> Result<FusedPlacement, Error> {
        let FusedChoice {
            threads,
            quads,
            columns,
            groups,
            expand_quads,
            summed_columns,
            slices,
            shrink_splits,
            broadcast,
        } = choice;
        check_threads(threads, device)?;
        super::check_choice("columns", columns, COLUMNS.contains(&columns))?;
        let shuffles = device.shuffled_lanes() > 1;
        super::check_choice("groups", groups, GROUPS.contains(&groups) && (groups == 1 || shuffles))?;
        let divides = |part: u32, whole: u32| part > 0 && whole.is_multiple_of(part);
        super::check_choice("quads", quads, divides(quads, MOST_QUADS) && self.fills(quads))?;
        let expands = self.ways_to_expand(quads).any(|possible| possible == expand_quads);
        super::check_choice("expand_quads", expand_quads, expands)?;
        super::check_choice(
            "summed_columns",
            summed_columns,
            self.ways_to_sum(columns, groups, device).contains(&summed_columns),
        )?;
        super::check_choice("slices", slices, slices > 0)?;
        let most_splits = self.ways_to_shrink(threads, quads, summed_columns, device).max().unwrap_or(0);
        super::check_choice("shrink_splits", shrink_splits, shrink_splits <= most_splits)?;
        let ways = self.ways_to_coefficients(expand_quads, device);
        super::check_choice("broadcast", u32::from(broadcast), ways.contains(&broadcast))?;
        let tile = self.tile(&choice, device);
        let memory = self.memory(&tile);
        Error::check_limit(
            format_args!("{} workgroup memory (bytes)", self.kernel),
            Limit::ComputeWorkgroupStorageSize,
            memory,
            u64::from(device.limits.max_compute_workgroup_storage_size),
            "use a smaller rank or fewer experts, or request a device with the adapter's limit",
        )?;
        let slice_vecs = self.target_vecs.div_ceil(slices).max(1).next_multiple_of(threads);
        let slices = self.target_vecs.div_ceil(slice_vecs).max(1);
        check_grid(self.kernel, slices, device)?;
        let limits = &device.limits;
        let grid = Grid::tiles(self.kernel, slices, tile.tokens(), self.tokens, limits, FEWER_TOKENS)?;
        let shrink = (shrink_splits > 0).then(|| self.place_shrink(choice, tile, device)).transpose()?;
        let shrink_splits = shrink.map_or(0, |shrink| shrink.splits);
        let choice = FusedChoice { slices, shrink_splits, ..choice };
        Ok(FusedPlacement { choice, shrink, tile, slice_vecs, grid, memory })
    }

    /// What plans are ranked by: on a GPU the predicted seconds.
    fn cost(&self, plan: &FusedPlacement, device: &DeviceProfile) -> f64 {
        match Quirks::of(device).costs {
            Some(costs) => self.software_cost(plan, costs, device),
            None => self.seconds(plan, &device.numbers),
        }
    }

    /// The predicted time in the units of `costs`: that of a thread, times the number of times that the
    /// workgroups fill the device.
    fn software_cost(&self, plan: &FusedPlacement, costs: &Costs, device: &DeviceProfile) -> f64 {
        let FusedPlacement { tile, slice_vecs, choice, .. } = plan;
        let [quads, lanes, pass_columns, expand_quads] =
            [tile.quads, tile.lanes, tile.pass_columns, tile.expand_quads].map(f64::from);
        let threads = tile.threads();
        let wide = f64::from(threads) / f64::from(WORKGROUP);
        let passes = f64::from(self.columns.div_ceil(tile.groups * tile.pass_columns));
        let pass = |vecs: u32| {
            let steps = f64::from(vecs.div_ceil(tile.lanes));
            let sums = if tile.shuffled_lanes > 1 {
                pass_columns * lanes.log2() * costs.shared
            } else {
                f64::from((tile.pass_columns * tile.quads).div_ceil(threads)) * lanes * costs.shared
            };
            steps * ((4.0 + pass_columns) * costs.load + 4.0 * pass_columns * costs.multiply_add) + sums
        };
        let tiles = f64::from(self.tokens.div_ceil(tile.tokens()));
        let (shrink, before) = match &plan.shrink {
            None => {
                let interrupted = tile.shuffled_lanes > 1 && tile.summed_columns < self.columns;
                let times = if interrupted { costs.interrupted } else { 1.0 };
                (times * passes * pass(self.source_vecs), 0.0)
            }
            Some(shrink) => {
                let splits = f64::from(shrink.splits);
                let workgroups = filled(tiles * passes * splits * wide, device);
                let items = f64::from((self.columns * tile.quads).div_ceil(threads));
                let before = costs.dispatch + workgroups * (costs.workgroup + pass(shrink.split_vecs));
                (items * splits * costs.load, before)
            }
        };
        let rounds = f64::from(slice_vecs.div_ceil(threads));
        let rows = f64::from(self.expand_rows);
        let coefficients = if choice.broadcast {
            costs.shared / f64::from(tile.step) + expand_quads * costs.broadcast
        } else {
            expand_quads * costs.shared
        };
        let row = costs.load + coefficients + 4.0 * expand_quads * costs.multiply_add;
        let stage = f64::from((tile.staged_rows * tile.quads).div_ceil(threads)) * 3.0 * costs.shared;
        let stages = match (self.staged, tile.all_staged) {
            (false, _) => 0.0,
            (true, true) => stage,
            (true, false) => {
                let chunks = f64::from(self.expand_rows.div_ceil(tile.staged_rows));
                rounds * quads / expand_quads * chunks * (stage + costs.barriers)
            }
        };
        let expand = rounds * (quads / expand_quads * rows * row + 4.0 * quads * costs.store) + stages;
        before + filled(tiles * f64::from(choice.slices) * wide, device) * (costs.workgroup + shrink + expand)
    }

    /// The multiply-adds of a plan, counted as two operations each, including those that padding and slices
    /// repeat.
    pub(crate) fn flops(&self, plan: &FusedPlacement) -> u64 {
        let tokens = u64::from(self.tokens.div_ceil(plan.tile.tokens())) * u64::from(plan.tile.tokens());
        let columns = u64::from(self.columns.next_multiple_of(plan.tile.groups * plan.tile.pass_columns));
        let rows = u64::from(self.expand_rows);
        let repeated = if plan.shrink.is_some() { 1 } else { plan.choice.slices };
        let shrink = (4 * u64::from(self.source_vecs) * columns).saturating_mul(repeated.into());
        (2 * tokens).saturating_mul(shrink.saturating_add(4 * u64::from(self.target_vecs) * rows))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::element::Element;
    use crate::layer::{Config, Router};

    /// Shapes and devices, small and large.
    fn problems() -> impl Strategy<Value = (FusedProblem, DeviceProfile)> {
        let config = (1u32..20_000, 1u32..20_000, 1u32..80, 1u32..20, any::<[bool; 2]>());
        let memory = prop::sample::select(&[16_352u32, 16_384, 32_768, 65_536][..]);
        let subgroup_lanes = prop::sample::select(&[0u32, 1, 4, 8, 12, 32, 64][..]);
        let device = (memory, 1u32..2000, any::<bool>(), subgroup_lanes);
        (config, device, 1u32..1_000_000).prop_map(
            |((d_in, d_out, rank, experts, [latent, backward]), device, tokens)| {
                let router = if latent { Router::Latent } else { Router::Input };
                let config =
                    Config { d_in, d_out, rank, experts, scaling: 1.0, router, ..Default::default() };
                let products = rank * experts;
                let problem = FusedProblem {
                    kernel: "test",
                    tokens,
                    columns: if backward { products } else { config.shrink_rows() },
                    resident: u64::from(config.state_len()) * if backward { 2 } else { 1 },
                    per_summed: u64::from(backward),
                    source_vecs: d_in.div_ceil(4),
                    target_vecs: d_out.div_ceil(4),
                    expand_rows: if backward { config.shrink_rows() } else { products },
                    first_rows: if backward { config.a_rows() } else { 0 },
                    staged: !backward,
                    traffic: Traffic {
                        source: Element::F32,
                        matrix: Element::F32,
                        target: Element::F16,
                        accumulate: backward,
                    },
                };
                let (memory, busy, software, subgroup_lanes) = device;
                let limits =
                    wgpu::Limits { max_compute_workgroup_storage_size: memory, ..wgpu::Limits::default() };
                let profile = DeviceProfile::new(limits, busy);
                (problem, DeviceProfile { subgroup_lanes, software, ..profile })
            },
        )
    }

    fn check(
        problem: &FusedProblem,
        plan: &FusedPlacement,
        device: &DeviceProfile,
    ) -> Result<(), TestCaseError> {
        let FusedPlacement { tile, slice_vecs, grid, memory, choice, shrink } = *plan;
        let [slices, y, z] = grid.at(problem.tokens);
        // All slices but the last are full, and the last is not empty.
        prop_assert_eq!(slices, choice.slices);
        prop_assert!((slices - 1) * slice_vecs < problem.target_vecs);
        prop_assert!(slices * slice_vecs >= problem.target_vecs);
        prop_assert_eq!(slice_vecs % choice.threads, 0);
        // No tile is missing from the folded grid, and fewer spare ones than its second dimension are
        // skipped.
        let tiles = problem.tokens.div_ceil(tile.tokens());
        prop_assert!(y * z >= tiles && y * z - tiles < z);
        // Whole passes cover the shrink's columns. A pass is a multiple of the summed columns, or with
        // shuffles a divisor of them.
        let whole = if tile.shuffled_lanes > 1 {
            tile.summed_columns % (tile.groups * tile.pass_columns)
        } else {
            tile.pass_columns % tile.summed_columns
        };
        prop_assert_eq!(whole, 0);
        prop_assert_eq!(tile.shuffled_lanes, tile.lanes.min(device.shuffled_lanes()));
        prop_assert_eq!(tile.lanes % tile.shuffled_lanes, 0);
        prop_assert!(problem.columns.div_ceil(tile.pass_columns) * tile.pass_columns >= problem.columns);
        prop_assert_eq!(tile.threads(), choice.threads);
        prop_assert!(ways_to_thread(device).contains(&choice.threads));
        prop_assert_eq!(tile.quads % tile.expand_quads, 0);
        // Whole steps cover the expand's rows, and the staged coefficients fit in the place of the sums.
        prop_assert_eq!(problem.expand_rows % tile.step, 0);
        prop_assert_eq!(problem.first_rows % tile.step, 0);
        prop_assert_eq!(tile.staged_rows % tile.step, 0);
        // There is a lane for each coefficient of a step, and all of them are guaranteed to be in one
        // subgroup.
        prop_assert_eq!(tile.broadcast_lanes > 1, choice.broadcast);
        prop_assert!(!choice.broadcast || tile.step * tile.expand_quads <= tile.broadcast_lanes);
        prop_assert!(
            tile.broadcast_lanes.is_power_of_two() && tile.broadcast_lanes <= device.shuffled_lanes()
        );
        prop_assert!(!problem.staged || tile.staged_rows * tile.quads <= tile.scratch);
        let parts = tile.lanes / tile.shuffled_lanes;
        let through_memory = parts > 1 || tile.shuffled_lanes == 1;
        let needed = if shrink.is_some() { 1 } else { tile.summed_columns * tile.quads * parts };
        prop_assert!(!through_memory || tile.scratch >= needed);
        prop_assert!(problem.staged || tile.staged_rows == problem.expand_rows);
        prop_assert_eq!(tile.all_staged, tile.staged_rows == problem.expand_rows);

        prop_assert!(memory <= u64::from(device.limits.max_compute_workgroup_storage_size));
        let most = device.limits.max_compute_workgroups_per_dimension;
        prop_assert!(slices <= most && y <= most && z <= most);

        // The splits of a separate shrink cover the inner dimension, and none is empty. There is a workgroup
        // for each block of columns in each split.
        prop_assert_eq!(shrink.map_or(0, |shrink| shrink.splits), choice.shrink_splits);
        if let Some(ShrinkPlacement { tile: own, splits, split_vecs, grid, sums }) = shrink {
            prop_assert!(splits * split_vecs >= problem.source_vecs);
            prop_assert!((splits - 1) * split_vecs < problem.source_vecs);
            let grid = grid.at(problem.tokens);
            prop_assert_eq!(grid, [problem.columns.div_ceil(own.pass_columns) * splits, y, z]);
            prop_assert!(grid[0] <= most);
            let expected = [splits, tiles, problem.columns, 4 * tile.quads].map(u64::from);
            prop_assert_eq!(sums, 4 * expected.iter().product::<u64>());
            prop_assert_eq!([own.quads, own.groups, own.threads()], [tile.quads, 1, tile.threads()]);
            prop_assert!(16 * own.scratch <= device.limits.max_compute_workgroup_storage_size);
            let parts = own.lanes / own.shuffled_lanes;
            let through_memory = parts > 1 || own.shuffled_lanes == 1;
            prop_assert!(!through_memory || own.scratch >= own.summed_columns * own.quads * parts);
        }

        // The work is that of the layer, and what padding and slices repeat.
        let [tokens, columns, rows] = [problem.tokens, problem.columns, problem.expand_rows].map(u64::from);
        let [source, target] = [problem.source_vecs, problem.target_vecs].map(|n| 4 * u64::from(n));
        let least = 2 * tokens * (source * columns + target * rows);
        let repeated_tokens = u64::from(tiles * tile.tokens());
        let shrinks = if shrink.is_some() { 1 } else { slices };
        let padded = 2 * repeated_tokens * (source * (columns + 63) * u64::from(shrinks) + target * rows);
        prop_assert!((least..=padded).contains(&problem.flops(plan)));
        prop_assert!(
            repeated_tokens < 2 * tokens.max(2) + 2,
            "a tile is at most twice as long as its tokens"
        );
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_candidate_covers_every_output_once_within_limits((problem, device) in problems()) {
            // All these problems fit the memory of all these devices.
            let plans = problem.candidates(&device).expect("it fits");
            for plan in &plans {
                check(&problem, plan, &device)?;
            }
            // A candidate's choice gives the same placement, and an impossible choice is refused.
            for plan in &plans {
                prop_assert_eq!(problem.place(plan.choice, &device), Ok(*plan));
                prop_assert!(problem.cost(plan, &device).is_finite());
            }
            let impossible = FusedChoice { quads: 3, ..plans[0].choice };
            prop_assert!(problem.place(impossible, &device).is_err());
        }
    }
}
