//! The predicted time of `backward_params`.

use super::{EXCHANGE, Phase, bytes, later_groups, unpacking};
use crate::plan::outer::{OuterBlock, OuterDispatch, OuterPlacement, OuterProblem};
use crate::plan::{DeviceNumbers, WORKGROUP};

/// Tokens that are loaded before the first of them is used.
const LOADED_TOGETHER: f64 = 4.0;

impl OuterProblem {
    /// The predicted seconds on a GPU: one dispatch after the other, and the reduction of the splits.
    pub(crate) fn seconds(&self, plan: &OuterPlacement, gpu: &DeviceNumbers) -> f64 {
        let threads = f64::from(WORKGROUP);
        let dispatch = |dispatch| self.outer(dispatch, plan, threads, gpu);
        let dispatches: f64 = plan.dispatches.iter().map(dispatch).sum();
        let gaps = plan.dispatches.len().saturating_sub(1) as f64 * gpu.gap;
        let reduce = if plan.choice.splits > 1 { gpu.gap + self.reduce(plan, gpu) } else { 0.0 };
        gpu.launch + dispatches + gaps + reduce
    }

    /// A dispatch: the mean of its blocks, which run side by side.
    fn outer(
        &self,
        dispatch: &OuterDispatch,
        plan: &OuterPlacement,
        threads: f64,
        gpu: &DeviceNumbers,
    ) -> f64 {
        let all: u32 = dispatch.blocks.iter().map(|block| block.workgroups).sum();
        let share = |block: &OuterBlock| f64::from(block.workgroups) / f64::from(all.max(1));
        let splits = f64::from(plan.choice.splits);
        let tokens = f64::from(plan.split_tokens);
        let steps =
            self.blocks_of(dispatch).map(|(block, widths)| self.step(block, widths, plan, threads, gpu));
        let shares = dispatch.blocks.iter().map(share);
        let sum = |of: fn(&Phase) -> f64| -> f64 {
            steps.iter().zip(shares.clone()).map(|(step, share)| share * of(step)).sum()
        };
        let products = Phase {
            workgroups: splits * f64::from(all),
            threads,
            workgroup_memory: 16.0 * threads,
            registers: steps.iter().map(|step| step.registers).fold(0.0, f64::max),
            iterations: tokens,
            chain: sum(|step| step.chain),
            instructions: sum(|step| step.instructions),
            loaded: sum(|step| step.loaded),
            shared: 0.0,
            cached: splits * f64::from(all) * tokens * sum(|step| step.cached),
            memory: steps.iter().map(|step| step.memory).sum(),
        };
        let rows = sum(|step| step.iterations);
        // Gradients that are added to are loaded one by one, since each is stored before the next is read.
        let adds = self.traffic.accumulate && plan.choice.splits == 1;
        let store = Phase {
            iterations: 1.0,
            chain: if adds { rows * gpu.memory_latency } else { 0.0 },
            instructions: 8.0 * rows,
            cached: products.workgroups * threads * rows * 16.0 * if adds { 2.0 } else { 1.0 },
            memory: if plan.choice.splits == 1 { self.gradient_bytes(adds) } else { 0.0 },
            ..products
        };
        products.seconds(gpu) + Phase { loaded: 0.0, ..store }.seconds(gpu)
    }

    /// The blocks of a dispatch, with the vec4s of a row of X of each.
    fn blocks_of(&self, dispatch: &OuterDispatch) -> [(OuterBlock, u32); 3] {
        let widths = [self.config.d_in, self.config.d_out, self.config.rank];
        let [shrink, expand, latent] = dispatch.blocks;
        [(shrink, widths[0].div_ceil(4)), (expand, widths[1].div_ceil(4)), (latent, widths[2].div_ceil(4))]
    }

    /// A token in a block. `cached` is a workgroup's, `memory` all tokens' and workgroups', and `iterations`
    /// the rows of a thread.
    fn step(
        &self,
        block: OuterBlock,
        row_vecs: u32,
        plan: &OuterPlacement,
        threads: f64,
        gpu: &DeviceNumbers,
    ) -> Phase {
        if block.workgroups == 0 {
            return Phase::default();
        }
        let source = self.traffic.source;
        let (rows, quads) = (f64::from(block.rows), f64::from(block.rows / 4));
        let staged_tokens = (threads / quads).min(f64::from(plan.split_tokens));
        let shuffles = if plan.choice.broadcast { 4.0 * quads } else { quads };
        // Factors are single floats, two for a coefficient of the expand block.
        let staging = 8.0 * quads / threads;
        Phase {
            registers: 4.0 * rows + 4.0 * LOADED_TOGETHER + 24.0,
            iterations: rows,
            chain: gpu.loaded_latency() / LOADED_TOGETHER.min(f64::from(plan.split_tokens))
                + (gpu.cache_latency * (1.0 + 2.0 * EXCHANGE)) / staged_tokens,
            instructions: 4.0 * rows + shuffles + 8.0 + unpacking(source) + 10.0 * staging,
            loaded: threads * (4.0 * bytes(source) + 16.0 * quads + 4.0 * staging),
            cached: threads * 4.0 * bytes(source) + threads * 4.0 * staging,
            memory: f64::from(self.tokens) * 4.0 * f64::from(row_vecs) * bytes(source),
            ..Phase::default()
        }
    }

    /// Adding up the copies of the splits.
    fn reduce(&self, plan: &OuterPlacement, gpu: &DeviceNumbers) -> f64 {
        let splits = f64::from(plan.choice.splits);
        let copies = splits * self.layout.bytes() as f64;
        let groups = (plan.choice.splits + u32::from(self.traffic.accumulate)).div_ceil(4);
        Phase {
            workgroups: (self.layout.len() as f64 / f64::from(4 * WORKGROUP)).ceil(),
            threads: f64::from(WORKGROUP),
            iterations: 1.0,
            chain: gpu.loaded_latency() + later_groups(groups, gpu.loaded_latency()),
            instructions: 8.0 * splits + 10.0,
            cached: copies,
            memory: self.gradient_bytes(self.traffic.accumulate)
                + if copies < gpu.cache_bytes { 0.0 } else { 2.0 * copies },
            ..Phase::default()
        }
        .seconds(gpu)
    }

    fn gradient_bytes(&self, adds: bool) -> f64 {
        self.layout.bytes() as f64 * if adds { 2.0 } else { 1.0 }
    }
}
