//! Blocks and token splits of `backward_params`.

use super::{DeviceProfile, WORKGROUP, check_choice, cost, fold, halvings};
use crate::config::{Config, Router};
use crate::error::Error;
use crate::layout::Layout;

/// Rows of gradients a thread keeps in registers, a vec4 each.
const ROW_CHOICES: [u32; 4] = [16, 12, 8, 4];

/// Fewer tokens than this do not pay for a split's copy of the gradients.
const LEAST_SPLIT_TOKENS: u32 = 64;

/// What can be chosen about `backward_params` without changing what it computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "tuner", derive(serde::Serialize, serde::Deserialize))]
pub struct OuterChoice {
    /// Rows of gradients that a workgroup owns: 4, 8, 12 or 16.
    pub rows: u32,
    /// Splits of the tokens; each but a single one writes a copy of the gradients, to be added up.
    pub splits: u32,
}

/// What the plan of `backward_params` depends on.
#[derive(Debug, Clone)]
pub(crate) struct OuterProblem {
    pub(crate) config: Config,
    pub(crate) layout: Layout,
    pub(crate) tokens: u32,
}

/// `backward_params`'s blocks, splits and grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OuterPlacement {
    pub(crate) choice: OuterChoice,
    /// Tokens of a split.
    pub(crate) split_tokens: u32,
    /// Blocks of the shrink block, the expand block and the latent router.
    pub(crate) blocks: [u32; 3],
    pub(crate) grid: [u32; 3],
}

impl OuterProblem {
    fn blocks(&self, rows: u32) -> [u32; 3] {
        let Config { d_in, d_out, rank, experts, router, .. } = self.config;
        let columns = |width: u32| width.div_ceil(4).div_ceil(WORKGROUP);
        let latent = match router {
            Router::Input => 0,
            Router::Latent => columns(rank) * experts.div_ceil(rows),
        };
        [
            columns(d_in) * self.config.shrink_rows().div_ceil(rows),
            columns(d_out) * (rank * experts).div_ceil(rows),
            latent,
        ]
    }

    /// What is chosen: what was measured to be best, if it still fits, or else what should be best.
    pub(crate) fn plan(
        &self,
        tuned: Option<OuterChoice>,
        device: &DeviceProfile,
    ) -> Result<OuterPlacement, Error> {
        if let Some(plan) = tuned.and_then(|choice| self.place(choice, device).ok()) {
            return Ok(plan);
        }
        Ok(self.candidates(device)?[0])
    }

    /// Every plan that fits the device, at least one; what should be best comes first.
    pub(crate) fn candidates(&self, device: &DeviceProfile) -> Result<Vec<OuterPlacement>, Error> {
        let most_splits = self.most_splits(device);
        let mut candidates = Vec::new();
        let mut refused = None;
        for rows in ROW_CHOICES {
            for splits in halvings(most_splits) {
                match self.place(OuterChoice { rows, splits }, device) {
                    Ok(plan) => candidates.push(plan),
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
        }
        if let (Some(error), true) = (refused, candidates.is_empty()) {
            return Err(error);
        }
        candidates.sort_by(|a, b| self.cost(a, device).total_cmp(&self.cost(b, device)));
        Ok(candidates)
    }

    /// Never more splits than one binding holds copies of the gradients.
    fn most_splits(&self, device: &DeviceProfile) -> u32 {
        let limits = &device.limits;
        let copies = limits.max_storage_buffer_binding_size / self.layout.bytes();
        (self.tokens / LEAST_SPLIT_TOKENS)
            .min(copies.min(u64::from(u32::MAX)) as u32)
            .clamp(1, limits.max_compute_workgroups_per_dimension.max(1))
    }

    /// Lays the kernel out as chosen, if that is a possible choice and fits the device.
    fn place(&self, choice: OuterChoice, device: &DeviceProfile) -> Result<OuterPlacement, Error> {
        let OuterChoice { rows, splits } = choice;
        check_choice("rows", rows, ROW_CHOICES.contains(&rows))?;
        check_choice("splits", splits, (1..=self.most_splits(device)).contains(&splits))?;
        let split_tokens = self.tokens.div_ceil(splits);
        // A thread loops over a split's tokens, and once for each stage and what it stages.
        device.check_loops(
            "backward_params",
            2 * u64::from(split_tokens),
            "process fewer tokens at a time",
        )?;
        let blocks = self.blocks(rows);
        let [x, z] = fold("backward_params", blocks.iter().sum(), &device.limits)?;
        let splits = self.tokens.div_ceil(split_tokens);
        Ok(OuterPlacement {
            choice: OuterChoice { splits, ..choice },
            split_tokens,
            blocks,
            grid: [x, splits, z],
        })
    }

    /// Predicted time in the units of `cost`: what one workgroup's thread does, times how often the
    /// device has to be filled; and for splits, adding their copies up.
    fn cost(&self, plan: &OuterPlacement, device: &DeviceProfile) -> f64 {
        let OuterChoice { rows, splits } = plan.choice;
        let (rows, splits) = (f64::from(rows), f64::from(splits));
        let token = cost::LOAD + rows * (cost::FMA + cost::SHARED / 4.0 + 2.0 * cost::LOAD / 64.0);
        let outer = f64::from(plan.split_tokens) * token + rows * cost::LOAD;
        let workgroups = splits * plan.blocks.iter().map(|&blocks| f64::from(blocks)).sum::<f64>();
        let outer = cost::filled(workgroups, device) * (cost::WORKGROUP + outer);
        if plan.choice.splits == 1 {
            return outer;
        }
        let workgroups = self.layout.len() as f64 / f64::from(4 * WORKGROUP);
        outer + cost::filled(workgroups, device) * (cost::WORKGROUP + (splits + 1.0) * cost::LOAD)
    }

    /// Multiply-adds of a plan, counted as two operations each, with the rows and columns that padding
    /// repeats.
    pub(crate) fn flops(&self, plan: &OuterPlacement) -> u64 {
        let block = 4 * u64::from(WORKGROUP) * u64::from(plan.choice.rows);
        let blocks: u64 = plan.blocks.iter().map(|&blocks| u64::from(blocks)).sum();
        2 * u64::from(self.tokens) * blocks * block
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::plan::LLVMPIPE_LOOP_ITERATIONS;

    /// Shapes and devices, small and large, with and without a bound on loops.
    fn problems() -> impl Strategy<Value = (OuterProblem, DeviceProfile)> {
        let config = (1u32..20_000, 1u32..20_000, 1u32..80, 1u32..20, any::<bool>());
        (config, 1u32..200_000, 1u32..2000, any::<bool>()).prop_map(
            |((d_in, d_out, rank, experts, latent), tokens, busy, llvmpipe)| {
                let router = if latent { Router::Latent } else { Router::Input };
                let config = Config { d_in, d_out, rank, experts, scaling: 1.0, router };
                let layout = config.layout().expect("below the limit on parameters");
                let max_loop_iterations = if llvmpipe { LLVMPIPE_LOOP_ITERATIONS } else { u64::MAX };
                let device = DeviceProfile::new(wgpu::Limits::default(), busy);
                let device = DeviceProfile { max_loop_iterations, ..device };
                (OuterProblem { config, layout, tokens }, device)
            },
        )
    }

    fn check(
        problem: &OuterProblem,
        plan: &OuterPlacement,
        device: &DeviceProfile,
    ) -> Result<(), TestCaseError> {
        let OuterPlacement { choice: OuterChoice { rows, splits }, split_tokens, blocks, grid } = *plan;
        let Config { d_in, d_out, rank, experts, .. } = problem.config;
        // Splits: all but the last are full, and the last is not empty.
        prop_assert_eq!(grid[1], splits);
        prop_assert!((splits - 1) * split_tokens < problem.tokens);
        prop_assert!(u64::from(splits) * u64::from(split_tokens) >= u64::from(problem.tokens));
        // Blocks cover rows and columns, with less than a block to spare in each direction.
        let covered = |blocks: u32, matrix_rows: u32, width: u32| {
            blocks == matrix_rows.div_ceil(rows) * width.div_ceil(4 * WORKGROUP)
        };
        prop_assert!(covered(blocks[0], problem.config.shrink_rows(), d_in));
        prop_assert!(covered(blocks[1], rank * experts, d_out));
        let latent = if problem.config.router == Router::Latent { experts } else { 0 };
        prop_assert!(covered(blocks[2], latent, rank));
        let all: u32 = blocks.iter().sum();
        prop_assert!(grid[0] * grid[2] >= all && grid[0] * grid[2] - all < grid[2]);

        let most = device.limits.max_compute_workgroups_per_dimension;
        prop_assert!(grid.iter().all(|&workgroups| (1..=most).contains(&workgroups)));
        prop_assert!(2 * u64::from(split_tokens) <= device.max_loop_iterations);
        let copies = u64::from(splits) * problem.layout.bytes();
        prop_assert!(splits == 1 || copies <= device.limits.max_storage_buffer_binding_size);

        let elements = [d_in * problem.config.shrink_rows(), d_out * rank * experts, rank * latent];
        let least = 2 * u64::from(problem.tokens) * elements.map(u64::from).iter().sum::<u64>();
        prop_assert!(problem.flops(plan) >= least);
        let block = u64::from(4 * WORKGROUP * rows);
        prop_assert_eq!(problem.flops(plan), 2 * u64::from(problem.tokens) * u64::from(all) * block);
        Ok(())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_candidate_covers_every_gradient_once_within_limits((problem, device) in problems()) {
            match problem.candidates(&device) {
                Ok(plans) => {
                    for plan in &plans {
                        check(&problem, plan, &device)?;
                    }
                    let last = plans[plans.len() - 1];
                    prop_assert_eq!(problem.plan(Some(last.choice), &device), Ok(last));
                    let impossible = OuterChoice { rows: 5, ..last.choice };
                    prop_assert_eq!(problem.plan(Some(impossible), &device), Ok(plans[0]));
                }
                Err(error) => {
                    let refused = matches!(error, Error::OverLimit { limit: "driver's bound on loops", .. });
                    prop_assert!(refused && device.max_loop_iterations < u64::MAX, "{error}");
                }
            }
        }
    }
}
