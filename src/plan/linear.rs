//! Tiles, splits and grid of the frozen layer.

use super::quirks::{Costs, Quirks, filled};
use super::{DeviceProfile, FEWER_TOKENS, Grid, MOST_BYTES, Traffic, WORKGROUP, check_choice, halvings};
use crate::element::Element;
use crate::error::{Error, Limit};
use crate::layer::LinearDirection;

/// The most threads of a workgroup.
const MOST_THREADS: u32 = 256;
/// The most tokens of a thread that shares tiles in workgroup memory: more would spill on some GPUs.
const MOST_TILED_TOKENS: u32 = 8;
/// The most tokens of a thread without tiles: compilers unroll no longer loops.
const MOST_DIRECT_TOKENS: u32 = 32;
/// Tokens whose sums are in one array (`GROUP` in `linear_direct.wgsl`).
pub(crate) const GROUP: u32 = 8;
/// The most products with a vec4 of the source that are unrolled together: compilers give up on more.
const MOST_UNROLLED: u32 = 16;
/// The most vec4s of target columns of a thread.
const MOST_QUADS: u32 = 2;
/// The most vec4s of the inner dimension in a tile.
const MOST_DEPTH: u32 = 8;
/// The most vec4s of the inner dimension that a thread loads at a time.
const MOST_STEP: u32 = 8;
/// Those that it usually loads, so that enough loads are in flight.
const STEP: u32 = 4;
/// The most splits of the inner dimension.
const MOST_SPLITS: u32 = 64;
/// Candidates beyond these are not worth measuring.
const MOST_CHOICES: usize = 24;

/// The choices of a plan of `linear`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LinearChoice {
    /// Threads of a workgroup: 64, 128 or 256.
    pub threads: u32,
    /// Tokens that a thread computes: a power of two, in tiles up to 8, otherwise up to 32.
    pub thread_tokens: u32,
    /// vec4s of target columns that a thread computes: 1 or 2.
    pub thread_quads: u32,
    /// Workgroups that share the inner dimension of a tile. Another dispatch adds up what several leave.
    pub splits: u32,
    /// How a thread gets its operands.
    pub way: LinearWay,
}

/// How a thread of `linear` gets its operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum LinearWay {
    /// From tiles of both matrices in workgroup memory.
    Tiled {
        /// vec4s of the inner dimension in a tile: 1, 2, 4 or 8.
        depth: u32,
    },
    /// From the tensors.
    Direct {
        /// Threads that share outputs and lie along the inner dimension: a power of two.
        lanes: u32,
        /// vec4s of the inner dimension whose loads may overlap: 1, 2, 4 or 8.
        step: u32,
        /// Whether lanes of a subgroup broadcast the source to each other, or each lane reads all of it.
        broadcast: bool,
    },
    /// From the tensors, as cooperative matrices, which the threads of a subgroup multiply together: f16 with sums
    /// in f32. A workgroup has 64 threads; `thread_tokens` and `thread_quads` are 1.
    Matrices {
        /// Rows and columns of a matrix: those of the device ([`DeviceProfile::matrices`]).
        size: u32,
    },
}

/// The sizes that are fixed when a kernel of `linear` is compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct LinearTile {
    pub(crate) threads: u32,
    pub(crate) thread_tokens: u32,
    pub(crate) thread_quads: u32,
    pub(crate) way: LinearWay,
    /// Threads along the target columns.
    pub(crate) column_threads: u32,
    /// vec4s of target columns of a workgroup.
    pub(crate) quads: u32,
    /// Tokens of a workgroup.
    pub(crate) tokens: u32,
    /// vec4s of workgroup memory.
    pub(crate) scratch: u32,
    /// Lanes that broadcast one vec4 of the source each; 1 if every lane reads all of them.
    pub(crate) broadcast_lanes: u32,
}

/// The inputs of a plan of `linear`.
#[derive(Debug, Clone)]
pub(crate) struct LinearProblem {
    pub(crate) direction: LinearDirection,
    pub(crate) tokens: u32,
    /// vec4s in a row of the source.
    pub(crate) source_vecs: u32,
    /// vec4s in a row of the target.
    pub(crate) target_vecs: u32,
    pub(crate) bias: bool,
    /// Whether rows of the source start at multiples of 16 bytes.
    pub(crate) aligned: bool,
    pub(crate) traffic: Traffic,
}

/// The placement of `linear`: tile, splits and grids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinearPlacement {
    pub(crate) choice: LinearChoice,
    pub(crate) tile: LinearTile,
    /// vec4s of the inner dimension in one split.
    pub(crate) split_vecs: u32,
    pub(crate) grid: Grid,
    /// The dispatch that adds up several splits, and the bytes of their sums.
    pub(crate) reduce: Option<(Grid, u64)>,
}

impl LinearTile {
    fn new(choice: LinearChoice, device: &DeviceProfile) -> Self {
        let LinearChoice { threads, thread_tokens, thread_quads, way, .. } = choice;
        let column_threads = match way {
            // About as many along the tokens.
            LinearWay::Tiled { .. } => 1 << threads.ilog2().div_ceil(2),
            LinearWay::Direct { lanes, .. } => threads / lanes,
            // 4 x 4 matrices.
            LinearWay::Matrices { size } => size,
        };
        let quads = column_threads * thread_quads;
        let (tokens, scratch) = match way {
            LinearWay::Matrices { size } => (4 * size, size * size),
            LinearWay::Tiled { depth } => {
                let tokens = threads / column_threads * thread_tokens;
                (tokens, depth * (tokens + 4 * (quads + 8 / depth)))
            }
            LinearWay::Direct { lanes: 1, .. } => (thread_tokens, 1),
            LinearWay::Direct { .. } => (thread_tokens, thread_tokens.min(GROUP) * thread_quads * threads),
        };
        let broadcasts = matches!(way, LinearWay::Direct { broadcast: true, .. });
        let broadcast_lanes = if broadcasts { device.broadcast_lanes() } else { 1 };
        Self {
            threads,
            thread_tokens,
            thread_quads,
            way,
            column_threads,
            quads,
            tokens,
            scratch,
            broadcast_lanes,
        }
    }

    /// vec4s of the inner dimension that a workgroup adds up at a time.
    pub(crate) fn depth(&self) -> u32 {
        match self.way {
            LinearWay::Tiled { depth } => depth,
            LinearWay::Direct { lanes, step, .. } => lanes * step,
            LinearWay::Matrices { size } => size / 4,
        }
    }

    /// Bytes of workgroup memory.
    pub(crate) fn memory(&self) -> u64 {
        16 * u64::from(self.scratch)
    }
}

impl LinearProblem {
    /// The choices that fit the device: at least one, the best predicted one first.
    pub(crate) fn choices(&self, device: &DeviceProfile) -> Result<Vec<LinearChoice>, Error> {
        let mut refused = None;
        let mut placed = Vec::new();
        for choice in self.candidates(device) {
            match self.place(choice, device) {
                Ok(plan) => placed.push(plan),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) if placed.is_empty() => return Err(error),
            _ => {}
        }
        let placed = super::cheapest_first(placed, |plan| self.cost(plan, device));
        let mut choices: Vec<_> = placed.into_iter().map(|plan| plan.choice).collect();
        // The best without splits stays a candidate: some plans take no other.
        if let Some(whole) = choices.iter().position(|choice| choice.splits == 1)
            && whole >= MOST_CHOICES
        {
            choices.swap(MOST_CHOICES - 1, whole);
        }
        choices.truncate(MOST_CHOICES);
        Ok(choices)
    }

    /// Choices that may be good, whether or not they fit the device.
    fn candidates(&self, device: &DeviceProfile) -> Vec<LinearChoice> {
        let mut candidates = Vec::new();
        let mut add = |threads, thread_tokens, thread_quads, way| {
            let choice = LinearChoice { threads, thread_tokens, thread_quads, splits: 1, way };
            let most = self.most_splits(&LinearTile::new(choice, device), device);
            for splits in halvings(most).take(2).chain((most > 2).then_some(1)) {
                candidates.push(LinearChoice { splits, ..choice });
            }
        };
        if self.has_matrices(device.matrices) {
            add(WORKGROUP, 1, 1, LinearWay::Matrices { size: device.matrices });
        }
        for thread_quads in (1..=MOST_QUADS).rev() {
            for threads in [64, 128, 256] {
                for thread_tokens in halvings(MOST_TILED_TOKENS) {
                    for depth in [4, 2] {
                        add(threads, thread_tokens, thread_quads, LinearWay::Tiled { depth });
                    }
                }
            }
            // On GPUs more tokens take more registers than pays.
            let most_tokens = if device.software { MOST_DIRECT_TOKENS } else { GROUP };
            for thread_tokens in halvings(self.most_thread_tokens().min(most_tokens)).take(3) {
                for &lanes in self.ways_to_lanes(device) {
                    let ways: &[bool] = if lanes == 1 { device.ways_to_coefficients(1) } else { &[false] };
                    for &broadcast in ways {
                        let most = match device.software {
                            // Several lanes of a software driver are several loads already.
                            true if lanes > 1 => 1,
                            true => STEP,
                            // Weights of one step are 16 registers.
                            false if device.numbers.registers < 128 => 1,
                            // More weights than 16 vec4s at a time spill registers on AMD's RDNA 3.
                            false => STEP / thread_quads,
                        };
                        let step = (GROUP / thread_tokens).clamp(1, most);
                        let way = LinearWay::Direct { lanes, step, broadcast };
                        add(WORKGROUP, thread_tokens, thread_quads, way);
                    }
                }
            }
        }
        candidates
    }

    /// Lanes along the inner dimension. On GPUs those of forward read W0's rows coalesced, eight of them 128
    /// bytes at a time. On software drivers those of backward are rows whose loads overlap.
    fn ways_to_lanes(&self, device: &DeviceProfile) -> &'static [u32] {
        match (self.direction, device.software) {
            (LinearDirection::Forward, false) => &[8, 16],
            (LinearDirection::Backward, true) => &[1, 8],
            _ => &[1],
        }
    }

    /// Whether matrices of this size divide the layer. There have to be as many tokens, too: what is read of the
    /// source begins no later than at the last `size` of them.
    fn has_matrices(&self, size: u32) -> bool {
        let Traffic { source, matrix, .. } = self.traffic;
        let divides = |vecs: u32| vecs.is_multiple_of(size / 4);
        [8, 16].contains(&size)
            && [source, matrix] == [Element::F16; 2]
            && divides(self.source_vecs)
            && divides(self.target_vecs)
            && self.tokens >= size
            && self.aligned
    }

    /// A tile is less than twice as long as all tokens.
    fn most_thread_tokens(&self) -> u32 {
        self.tokens.min(MOST_DIRECT_TOKENS).next_power_of_two()
    }

    /// The most splits: few, so that few tokens keep the device busy, and only as many as have something to
    /// add up.
    fn most_splits(&self, tile: &LinearTile, device: &DeviceProfile) -> u32 {
        let workgroups =
            self.target_vecs.div_ceil(tile.quads).saturating_mul(self.tokens.div_ceil(tile.tokens));
        let wanted = device.busy_workgroups.div_ceil(workgroups);
        wanted.min(self.source_vecs.div_ceil(4 * tile.depth())).min(MOST_SPLITS).next_power_of_two()
    }

    /// The placement of a choice, if the choice is possible and fits the device.
    pub(crate) fn place(
        &self,
        choice: LinearChoice,
        device: &DeviceProfile,
    ) -> Result<LinearPlacement, Error> {
        let LinearChoice { threads, thread_tokens, thread_quads, splits, way } = choice;
        let power =
            |value: u32, least: u32, most: u32| value.is_power_of_two() && (least..=most).contains(&value);
        check_choice("threads", threads, power(threads, WORKGROUP, MOST_THREADS))?;
        check_choice("thread_quads", thread_quads, power(thread_quads, 1, MOST_QUADS))?;
        let most_tokens = match way {
            LinearWay::Matrices { size } => {
                let possible = size == device.matrices && self.has_matrices(size);
                check_choice("size", size, possible && threads == WORKGROUP && thread_quads == 1)?;
                1
            }
            LinearWay::Tiled { depth } => {
                check_choice("depth", depth, power(depth, 1, MOST_DEPTH))?;
                MOST_TILED_TOKENS
            }
            LinearWay::Direct { lanes, step, broadcast } => {
                check_choice("lanes", lanes, power(lanes, 1, threads))?;
                let unrolled = |step: u32| step * thread_tokens.min(GROUP) * thread_quads <= MOST_UNROLLED;
                let one_array = step == 1 || thread_tokens <= GROUP;
                check_choice("step", step, power(step, 1, MOST_STEP) && unrolled(step) && one_array)?;
                let broadcasts = lanes == 1 && device.broadcast_lanes() > 1;
                check_choice("broadcast", u32::from(broadcast), !broadcast || broadcasts)?;
                self.most_thread_tokens()
            }
        };
        check_choice("thread_tokens", thread_tokens, power(thread_tokens, 1, most_tokens))?;
        let tile = LinearTile::new(choice, device);
        let most_splits = self.most_splits(&tile, device);
        check_choice("splits", splits, (1..=most_splits).contains(&splits))?;
        let limits = &device.limits;
        Error::check_limit(
            "linear (threads in a workgroup)",
            Limit::ComputeInvocationsPerWorkgroup,
            u64::from(threads),
            u64::from(limits.max_compute_invocations_per_workgroup.min(limits.max_compute_workgroup_size_x)),
            "request a device with compute shaders",
        )?;
        Error::check_limit(
            "linear workgroup memory (bytes)",
            Limit::ComputeWorkgroupStorageSize,
            tile.memory(),
            u64::from(limits.max_compute_workgroup_storage_size),
            "request a device with at least WebGPU's default limits",
        )?;
        let split_vecs = self.source_vecs.div_ceil(splits).next_multiple_of(tile.depth());
        let splits = self.source_vecs.div_ceil(split_vecs);
        let columns = |quads: u32, splits: u32| {
            let columns = self.target_vecs.div_ceil(quads).saturating_mul(splits);
            Error::check_limit(
                "linear's grid (blocks of target columns)",
                Limit::ComputeWorkgroupsPerDimension,
                u64::from(columns),
                u64::from(limits.max_compute_workgroups_per_dimension),
                "use a narrower layer",
            )?;
            Ok::<_, Error>(columns)
        };
        let tiles =
            |columns, tokens| Grid::tiles("linear", columns, tokens, self.tokens, limits, FEWER_TOKENS);
        let grid = tiles(columns(tile.quads, splits)?, tile.tokens)?;
        let reduce = if splits > 1 {
            let sums = [splits, self.tokens, self.target_vecs]
                .map(u64::from)
                .into_iter()
                .fold(16, u64::saturating_mul);
            let bindable = limits.max_storage_buffer_binding_size.min(MOST_BYTES);
            for (limit, most) in
                [(Limit::BufferSize, limits.max_buffer_size), (Limit::StorageBufferBindingSize, bindable)]
            {
                Error::check_limit("sums of linear's splits (bytes)", limit, sums, most, FEWER_TOKENS)?;
            }
            Some((tiles(columns(WORKGROUP, 1)?, 1)?, sums))
        } else {
            None
        };
        let choice = LinearChoice { splits, ..choice };
        Ok(LinearPlacement { choice, tile, split_vecs, grid, reduce })
    }

    /// What plans are ranked by: on a GPU the predicted seconds.
    fn cost(&self, plan: &LinearPlacement, device: &DeviceProfile) -> f64 {
        match Quirks::of(device).costs {
            Some(costs) => self.software_cost(plan, costs, device),
            None => self.seconds(plan, &device.numbers),
        }
    }

    /// The predicted time in the units of `costs`: that of a thread, times the number of times that the
    /// workgroups fill the device.
    fn software_cost(&self, plan: &LinearPlacement, costs: &Costs, device: &DeviceProfile) -> f64 {
        let LinearPlacement { choice, tile, split_vecs, .. } = plan;
        let [tokens, quads, threads] = [tile.thread_tokens, tile.thread_quads, tile.threads].map(f64::from);
        let rounds = f64::from(split_vecs.div_ceil(tile.depth()));
        let products = 4.0 * tokens * quads * costs.multiply_add;
        let round = match tile.way {
            LinearWay::Tiled { depth } => {
                let depth = f64::from(depth);
                let source = f64::from(tile.tokens) * depth / threads;
                let weights = 4.0 * f64::from(tile.quads) * depth / threads;
                let fetch = (source + weights) * (costs.load + costs.shared);
                fetch + costs.barriers + depth * ((tokens + 4.0 * quads) * costs.shared + products)
            }
            LinearWay::Direct { lanes, step, .. } => {
                let step = f64::from(step);
                let source = match tile.broadcast_lanes {
                    1 => step * tokens * costs.load,
                    lanes => {
                        (step * tokens / f64::from(lanes)).ceil() * costs.load
                            + step * tokens * costs.broadcast
                    }
                };
                let down = lanes == 1 && self.direction == LinearDirection::Backward;
                let weight = costs.load * if down { (costs.downwards / quads).max(1.0) } else { 1.0 };
                source + step * (4.0 * quads * weight + products)
            }
            // No processor that a software driver runs on has any.
            LinearWay::Matrices { .. } => f64::INFINITY,
        };
        let lanes = match tile.way {
            LinearWay::Direct { lanes, .. } if lanes > 1 => {
                tokens * quads * (costs.store + costs.shared) + costs.barriers
            }
            _ => 0.0,
        };
        let columns = match tile.way {
            LinearWay::Tiled { .. } => f64::from(self.target_vecs.div_ceil(tile.quads)),
            // Threads past the last column end at once.
            LinearWay::Direct { .. } | LinearWay::Matrices { .. } => {
                f64::from(self.target_vecs) / f64::from(tile.quads)
            }
        };
        let workgroups = columns * f64::from(self.tokens.div_ceil(tile.tokens));
        let splits = f64::from(choice.splits);
        let thread = costs.workgroup + rounds * round + lanes + tokens * quads * costs.store;
        let reduce = if plan.reduce.is_some() {
            let workgroups = f64::from(self.target_vecs.div_ceil(WORKGROUP)) * f64::from(self.tokens);
            costs.dispatch
                + filled(workgroups, device) * (costs.workgroup + splits * costs.load + costs.store)
        } else {
            0.0
        };
        // Larger workgroups fill the device sooner.
        let workgroups = workgroups * splits * threads / f64::from(WORKGROUP);
        filled(workgroups, device) * thread + reduce
    }

    /// The iterations of a thread's long loop.
    pub(crate) fn rounds(&self, choice: LinearChoice, device: &DeviceProfile) -> u64 {
        let placed = self.place(choice, device);
        placed.map_or(u64::MAX, |plan| plan.split_vecs.div_ceil(plan.tile.depth()).into())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TRAFFIC: Traffic =
        Traffic { source: Element::F32, matrix: Element::F16, target: Element::F32, accumulate: true };

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_candidate_covers_every_output_once_within_limits(
            [source_vecs, target_vecs] in [1u32..20_000, 1u32..20_000],
            tokens in prop_oneof![1u32..40, 1u32..100_000],
            (backward, software) in any::<(bool, bool)>(),
            busy in 1u32..2000,
            subgroup_lanes in prop::sample::select(&[1u32, 4, 8, 32][..]),
            most_threads in prop::sample::select(&[64u32, 128, 256][..]),
        ) {
            let direction = if backward { LinearDirection::Backward } else { LinearDirection::Forward };
            let (bias, aligned, traffic) = (false, true, TRAFFIC);
            let problem = LinearProblem { direction, tokens, source_vecs, target_vecs, bias, aligned, traffic };
            let limits =
                wgpu::Limits { max_compute_invocations_per_workgroup: most_threads, ..wgpu::Limits::default() };
            let device = DeviceProfile { subgroup_lanes, software, ..DeviceProfile::new(limits, busy) };
            let choices = problem.choices(&device).expect("it fits");
            prop_assert!(choices.len() <= MOST_CHOICES);
            // One order of sums for any number of tokens takes a plan without splits.
            prop_assert!(choices.iter().any(|choice| choice.splits == 1));
            for choice in choices {
                let plan = problem.place(choice, &device).expect("a candidate fits");
                let LinearPlacement { tile, split_vecs, grid, reduce, .. } = plan;
                prop_assert_eq!(plan.choice, choice);
                let splits = choice.splits;
                prop_assert!(splits * split_vecs >= source_vecs && (splits - 1) * split_vecs < source_vecs);
                prop_assert_eq!(split_vecs % tile.depth(), 0);
                let [x, y, z] = grid.at(tokens);
                prop_assert_eq!(x, target_vecs.div_ceil(tile.quads) * splits);
                prop_assert!(y * z >= tokens.div_ceil(tile.tokens));
                prop_assert_eq!(tile.quads, tile.column_threads * tile.thread_quads);
                prop_assert!(tile.threads <= most_threads && tile.broadcast_lanes <= subgroup_lanes.max(1));
                prop_assert!(tile.memory() <= u64::from(device.limits.max_compute_workgroup_storage_size));
                prop_assert_eq!(reduce.is_some(), splits > 1);
                if let Some((grid, sums)) = reduce {
                    let [x, y, z] = grid.at(tokens);
                    prop_assert!(x * WORKGROUP >= target_vecs && y * z >= tokens);
                    prop_assert_eq!(sums, [16, splits, tokens, target_vecs].map(u64::from).iter().product::<u64>());
                }
            }
        }

        #[test]
        fn impossible_choices_are_refused(
            sizes in any::<[u32; 4]>(),
            (tiled, broadcast) in any::<(bool, bool)>(),
            [a, b] in any::<[u32; 2]>(),
        ) {
            let [threads, thread_tokens, thread_quads, splits] = sizes.map(|size| size % 300);
            let way = if tiled {
                LinearWay::Tiled { depth: a }
            } else {
                LinearWay::Direct { lanes: a, step: b, broadcast }
            };
            let direction = LinearDirection::Forward;
            let (bias, aligned, traffic) = (false, true, TRAFFIC);
            let [source_vecs, target_vecs] = [100; 2];
            let problem = LinearProblem { direction, tokens: 3, source_vecs, target_vecs, bias, aligned, traffic };
            let device = DeviceProfile::new(wgpu::Limits::default(), 8);
            let choice = LinearChoice { threads, thread_tokens, thread_quads, splits, way };
            // Hardly any of these is possible, and none panics.
            if let Ok(plan) = problem.place(choice, &device) {
                prop_assert!(plan.tile.quads * plan.tile.tokens > 0 && !broadcast);
            }
        }
    }
}
