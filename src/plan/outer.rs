//! Blocks and token splits of `backward_params`.

use super::cost::Traffic;
use super::quirks::{Costs, Quirks, filled};
use super::tile::{check_threads, ways_to_thread};
use super::{DeviceProfile, WORKGROUP, check_choice, fold, halvings};
use crate::error::Error;
use crate::layer::{Config, Layout};

/// The candidates for the most rows of gradients that a thread keeps in registers, a vec4 each.
const ROW_CHOICES: [u32; 5] = [32, 16, 12, 8, 4];

/// Fewer tokens than this do not pay for a split's copy of the gradients.
const LEAST_SPLIT_TOKENS: u32 = 64;

/// The most times that the workgroups of all splits together may fill the device.
const MOST_FILLS: u32 = 4;

/// The choices of a plan of `backward_params`.
///
/// The default is one workgroup of 64 threads for each four rows, without splits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct OuterChoice {
    /// Threads of a workgroup: 64, or on GPUs also 128 or 256.
    pub threads: u32,
    /// The most rows of gradients of a workgroup: a multiple of four, up to 16, or up to 32 on software
    /// drivers.
    pub rows: u32,
    /// Splits of the tokens. If there are several, each writes a copy of the gradients, and a reduction adds
    /// up the copies.
    pub splits: u32,
    /// Whether lanes of a subgroup broadcast coefficients to each other, or each lane reads all of them.
    pub broadcast: bool,
    /// Whether the shrink block, the expand block and the gate block have separate dispatches, or share
    /// one.
    pub separate: bool,
}

impl Default for OuterChoice {
    fn default() -> Self {
        Self { threads: WORKGROUP, rows: 4, splits: 1, broadcast: false, separate: false }
    }
}

/// The inputs of a plan of `backward_params`.
#[derive(Debug, Clone)]
pub(crate) struct OuterProblem {
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) tokens: u32,
    pub(crate) traffic: Traffic,
}

/// The division of one of the three blocks of the layout: the shrink block, the expand block or the gate
/// block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OuterBlock {
    /// Rows of gradients of a workgroup.
    pub(crate) rows: u32,
    /// Workgroups for each split of the tokens.
    pub(crate) workgroups: u32,
}

/// One dispatch of `backward_params`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OuterDispatch {
    /// The three blocks. One that is not in this dispatch has no rows and no workgroups.
    pub(crate) blocks: [OuterBlock; 3],
    pub(crate) grid: [u32; 3],
}

/// The placement of `backward_params`: dispatches and splits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OuterPlacement {
    pub(crate) choice: OuterChoice,
    /// Tokens whose loads a thread issues together.
    pub(crate) tokens_at_once: u32,
    /// Tokens of a split at capacity.
    pub(crate) split_tokens: u32,
    /// Lanes that broadcast one coefficient each; 1 if every lane reads all of them.
    pub(crate) broadcast_lanes: u32,
    pub(crate) dispatches: Vec<OuterDispatch>,
}

impl OuterProblem {
    /// Divides the three blocks into workgroups of `threads` columns and at most `most_rows` rows, as evenly as
    /// possible.
    fn blocks(&self, threads: u32, most_rows: u32) -> [OuterBlock; 3] {
        let Config { d_in, d_out, rank, experts, .. } = self.config;
        let block = |rows: u32, width: u32| {
            let along_rows = rows.div_ceil(most_rows);
            let workgroups = along_rows * width.div_ceil(4).div_ceil(threads);
            OuterBlock { rows: rows.div_ceil(along_rows.max(1)).next_multiple_of(4), workgroups }
        };
        let gate = self.config.gate().block_columns(rank);
        let gate_rows = if gate == 0 { 0 } else { experts };
        [block(self.config.shrink_rows(), d_in), block(rank * experts, d_out), block(gate_rows, gate)]
    }

    /// All candidate placements that fit the device's limits: at least one, the best predicted one first.
    pub(crate) fn candidates(&self, device: &DeviceProfile) -> Result<Vec<OuterPlacement>, Error> {
        let mut candidates: Vec<OuterPlacement> = Vec::new();
        let mut refused = None;
        for choice in ways_to_thread(device).iter().flat_map(|&threads| self.ways(threads, device)) {
            match self.place(choice, device) {
                // A block with few rows is divided the same way under several bounds on rows.
                Ok(plan) if candidates.contains(&plan) => {}
                Ok(plan) => candidates.push(plan),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        if let (Some(error), true) = (refused, candidates.is_empty()) {
            return Err(error);
        }
        Ok(super::cheapest_first(candidates, |plan| self.cost(plan, device)))
    }

    /// The choices with workgroups of this size.
    fn ways(&self, threads: u32, device: &DeviceProfile) -> impl Iterator<Item = OuterChoice> {
        let most_rows = Quirks::of(device).most_rows;
        let most_splits = self.most_splits(threads, device);
        let copies = self.copies(device);
        ROW_CHOICES.into_iter().filter(move |&rows| rows <= most_rows).flat_map(move |rows| {
            halvings(copies).filter(move |&splits| splits <= most_splits).flat_map(move |splits| {
                device.ways_to_coefficients(rows / 4).iter().flat_map(move |&broadcast| {
                    [false, true].map(|separate| OuterChoice { threads, rows, splits, broadcast, separate })
                })
            })
        })
    }

    /// The most splits of any choice: enough to keep the device busy, or to make its threads' loops short
    /// enough. Each split is a copy of the gradients, and one binding must hold all copies.
    fn most_splits(&self, threads: u32, device: &DeviceProfile) -> u32 {
        // The fewest workgroups of a split.
        let blocks = self.blocks(threads, Quirks::of(device).most_rows);
        let workgroups: u32 = blocks.iter().map(|block| block.workgroups).sum();
        let busy = device.busy_workgroups.saturating_mul(MOST_FILLS).div_ceil(workgroups.max(1));
        // A thread takes one iteration for each token of its split, and less than one more to stage it. This
        // allows twice the splits that are needed for that, because candidates are halvings.
        let looped = u64::from(self.tokens).div_ceil((device.max_loop_iterations / 4).max(1));
        busy.max(u32::try_from(looped).unwrap_or(u32::MAX)).clamp(1, self.copies(device))
    }

    /// The most splits with enough tokens each whose copies of the gradients fit one binding.
    fn copies(&self, device: &DeviceProfile) -> u32 {
        let limits = &device.limits;
        let copies = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) / self.layout.bytes();
        (self.tokens / LEAST_SPLIT_TOKENS)
            .min(copies.min(u64::from(u32::MAX)) as u32)
            .clamp(1, limits.max_compute_workgroups_per_dimension.max(1))
    }

    /// Places the kernel by a choice, if the choice is possible and fits the device.
    pub(crate) fn place(&self, choice: OuterChoice, device: &DeviceProfile) -> Result<OuterPlacement, Error> {
        let OuterChoice { threads, rows, splits, broadcast, separate } = choice;
        check_threads(threads, device)?;
        check_choice(
            "rows",
            rows,
            rows > 0 && rows.is_multiple_of(4) && rows <= Quirks::of(device).most_rows,
        )?;
        check_choice("splits", splits, (1..=self.most_splits(threads, device)).contains(&splits))?;
        check_choice(
            "broadcast",
            u32::from(broadcast),
            device.ways_to_coefficients(rows / 4).contains(&broadcast),
        )?;
        let split_tokens = self.tokens.div_ceil(splits);
        let splits = self.tokens.div_ceil(split_tokens);
        let all = self.blocks(threads, rows);
        let dispatch = |blocks: [OuterBlock; 3]| {
            let workgroups = blocks.iter().map(|block| block.workgroups).sum();
            let [x, z] = fold("backward_params", workgroups, &device.limits, "use a narrower layer")?;
            Ok(OuterDispatch { blocks, grid: [x, splits, z] })
        };
        let alone = |at: usize| {
            let mut blocks = [OuterBlock::default(); 3];
            blocks[at] = all[at];
            blocks
        };
        let dispatches = if separate {
            (0..3)
                .filter(|&at| all[at].workgroups > 0)
                .map(|at| dispatch(alone(at)))
                .collect::<Result<_, _>>()?
        } else {
            vec![dispatch(all)?]
        };
        let rows = all.map(|block| block.rows).into_iter().max().unwrap_or(rows);
        Ok(OuterPlacement {
            choice: OuterChoice { rows, splits, ..choice },
            // Four tokens share random words.
            tokens_at_once: if self.config.drops_input() { 4 } else { Quirks::of(device).tokens_at_once },
            split_tokens,
            broadcast_lanes: if broadcast { device.broadcast_lanes() } else { 1 },
            dispatches,
        })
    }

    /// What plans are ranked by: on a GPU the predicted seconds.
    fn cost(&self, plan: &OuterPlacement, device: &DeviceProfile) -> f64 {
        match Quirks::of(device).costs {
            Some(costs) => self.software_cost(plan, costs, device),
            None => self.seconds(plan, &device.numbers),
        }
    }

    /// The predicted time in the units of `costs`. For each dispatch, that of a thread times the number of
    /// times that the workgroups fill the device; with several splits, also the time to add up their copies.
    fn software_cost(&self, plan: &OuterPlacement, costs: &Costs, device: &DeviceProfile) -> f64 {
        let Quirks { runs_untaken_branches, .. } = Quirks::of(device);
        let splits = f64::from(plan.choice.splits);
        let threads = f64::from(plan.choice.threads);
        let wide = threads / f64::from(WORKGROUP);
        let store = |block: &OuterBlock| f64::from(block.rows) * costs.store;
        let thread = |block: &OuterBlock| {
            let (rows, quads) = (f64::from(block.rows), f64::from(block.rows / 4));
            let coefficients = if plan.choice.broadcast {
                costs.shared + quads * costs.broadcast
            } else {
                quads * costs.shared
            };
            // Each thread stages its share of the coefficients: vec4s of four, with two loads for each of the
            // four.
            let staged = quads * 8.0 * costs.load / threads;
            let token = costs.load + coefficients + staged + rows * costs.multiply_add;
            costs.workgroup + f64::from(plan.split_tokens) * token + store(block)
        };
        let dispatch = |dispatch: &OuterDispatch| {
            let blocks = dispatch.blocks.iter().filter(|block| block.workgroups > 0);
            let workgroups = |block: &OuterBlock| splits * f64::from(block.workgroups);
            let all: f64 = blocks.clone().map(workgroups).sum();
            // On some devices, threads run through the branches of the other blocks too.
            let untaken: f64 = if runs_untaken_branches { blocks.clone().map(store).sum() } else { 0.0 };
            let spent: f64 =
                blocks.map(|block| workgroups(block) * (thread(block) + untaken - store(block))).sum();
            costs.dispatch + filled(all * wide, device) * spent / all
        };
        let outer: f64 = plan.dispatches.iter().map(dispatch).sum();
        if plan.choice.splits == 1 {
            return outer;
        }
        let workgroups = self.layout.len() as f64 / f64::from(4 * WORKGROUP);
        let reduce = costs.workgroup + splits * costs.load + costs.store;
        outer + costs.dispatch + filled(workgroups, device) * reduce
    }

    /// The multiply-adds of a plan, counted as two operations each, including those of padded rows and
    /// columns.
    pub(crate) fn flops(&self, plan: &OuterPlacement) -> u64 {
        let elements = |block: &OuterBlock| {
            u64::from(4 * plan.choice.threads) * u64::from(block.rows) * u64::from(block.workgroups)
        };
        let blocks = plan.dispatches.iter().flat_map(|dispatch| &dispatch.blocks);
        (2 * u64::from(self.tokens)).saturating_mul(blocks.map(elements).sum::<u64>())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::element::Element;
    use crate::layer::Router;

    /// Shapes and devices, small and large.
    fn problems() -> impl Strategy<Value = (OuterProblem, DeviceProfile)> {
        let config = (1u32..20_000, 1u32..20_000, 1u32..80, 1u32..20, any::<[bool; 2]>());
        let subgroup_lanes = prop::sample::select(&[0u32, 1, 4, 8, 12, 32, 64][..]);
        (config, 1u32..200_000, 1u32..2000, any::<bool>(), subgroup_lanes).prop_map(
            |(
                (d_in, d_out, rank, experts, [latent, router_bias]),
                tokens,
                busy,
                software,
                subgroup_lanes,
            )| {
                let router = if latent { Router::Latent } else { Router::Input };
                let config = Config { d_in, d_out, rank, experts, router, router_bias, ..Config::DEFAULT };
                let layout = config.layout().expect("below the limit on parameters");
                let device = DeviceProfile::new(wgpu::Limits::default(), busy);
                let device = DeviceProfile { subgroup_lanes, software, ..device };
                let traffic = Traffic {
                    source: Element::F32,
                    matrix: Element::F32,
                    target: Element::F32,
                    accumulate: latent,
                };
                (OuterProblem { config, layout, tokens, traffic }, device)
            },
        )
    }

    fn check(
        problem: &OuterProblem,
        plan: &OuterPlacement,
        device: &DeviceProfile,
    ) -> Result<(), TestCaseError> {
        let OuterPlacement { choice, split_tokens, broadcast_lanes, dispatches, .. } = plan;
        let OuterChoice { threads, rows, splits, broadcast, separate } = *choice;
        let Config { d_in, d_out, rank, experts, .. } = problem.config;
        // All splits but the last are full, and the last is not empty.
        prop_assert!((splits - 1) * split_tokens < problem.tokens);
        prop_assert!(u64::from(splits) * u64::from(*split_tokens) >= u64::from(problem.tokens));
        // Each block is in one dispatch, and its workgroups cover its rows and columns with less than one
        // workgroup to spare in each direction.
        let gate = problem.config.gate().block_columns(rank);
        let gate_rows = if gate == 0 { 0 } else { experts };
        let matrices = [(problem.config.shrink_rows(), d_in), (rank * experts, d_out), (gate_rows, gate)];
        let mut all = 0;
        for (at, (matrix_rows, width)) in matrices.into_iter().enumerate() {
            let blocks: Vec<_> = dispatches
                .iter()
                .map(|dispatch| dispatch.blocks[at])
                .filter(|block| block.rows > 0)
                .collect();
            if matrix_rows == 0 {
                prop_assert!(blocks.is_empty());
                continue;
            }
            let [block] = blocks[..] else { return Err(TestCaseError::fail("not in one dispatch")) };
            prop_assert!(block.rows.is_multiple_of(4) && block.rows <= rows);
            prop_assert_eq!(block.workgroups, matrix_rows.div_ceil(block.rows) * width.div_ceil(4 * threads));
            prop_assert!(!broadcast || block.rows <= 4 * broadcast_lanes);
            all += block.workgroups * block.rows;
        }
        prop_assert_eq!(*broadcast_lanes > 1, broadcast);
        prop_assert!(broadcast_lanes.is_power_of_two() && *broadcast_lanes <= device.shuffled_lanes());
        prop_assert_eq!(dispatches.len() > 1, separate);

        let most = device.limits.max_compute_workgroups_per_dimension;
        for OuterDispatch { blocks, grid } in dispatches {
            let workgroups: u32 = blocks.iter().map(|block| block.workgroups).sum();
            prop_assert_eq!(grid[1], splits);
            prop_assert!(grid[0] * grid[2] >= workgroups && grid[0] * grid[2] - workgroups < grid[2]);
            prop_assert!(grid.iter().all(|&workgroups| (1..=most).contains(&workgroups)));
        }
        // There are never more copies than keep the device busy.
        prop_assert!(ways_to_thread(device).contains(&threads));
        let blocks = problem.blocks(threads, Quirks::of(device).most_rows);
        let workgroups: u32 = blocks.iter().map(|block| block.workgroups).sum();
        prop_assert!(splits == 1 || (splits - 1) * workgroups < MOST_FILLS * device.busy_workgroups);
        let copies = u64::from(splits) * problem.layout.bytes();
        prop_assert!(splits == 1 || copies <= device.limits.max_storage_buffer_binding_size);

        let elements = [d_in * problem.config.shrink_rows(), d_out * rank * experts, gate_rows * gate];
        let least = 2 * u64::from(problem.tokens) * elements.map(u64::from).iter().sum::<u64>();
        prop_assert!(problem.flops(plan) >= least);
        let planned = 2 * u64::from(problem.tokens) * u64::from(all) * u64::from(4 * threads);
        prop_assert_eq!(problem.flops(plan), planned);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_candidate_covers_every_gradient_once_within_limits((problem, device) in problems()) {
            let plans = problem.candidates(&device).expect("it fits");
            for plan in &plans {
                check(&problem, plan, &device)?;
            }
            for plan in &plans {
                prop_assert_eq!(problem.place(plan.choice, &device), Ok(plan.clone()));
                prop_assert!(problem.cost(plan, &device).is_finite());
            }
            let impossible = OuterChoice { rows: 5, ..plans[0].choice };
            prop_assert!(problem.place(impossible, &device).is_err());
        }
    }
}
