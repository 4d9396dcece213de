//! The predicted time of `backward_params`.

use super::{EXCHANGE, Phase, bytes, later_groups, unpacking};
use crate::layer::Config;
use crate::plan::outer::{OuterBlock, OuterDispatch, OuterPlacement, OuterProblem};
use crate::plan::{DeviceNumbers, WORKGROUP};

/// Tokens that are loaded before the first of them is used.
const LOADED_TOGETHER: f64 = 4.0;

/// The part of the last cache that copies of the gradients may fill and still be there when they are added up. An H100
/// took as long for 23 MB of them as for as much from memory, with 50 MB of cache.
const KEPT: f64 = 0.5;

impl OuterProblem {
    /// The predicted seconds on a GPU: one dispatch after the other, and the reduction of the splits.
    pub(crate) fn seconds(&self, plan: &OuterPlacement, gpu: &DeviceNumbers) -> f64 {
        let threads = f64::from(plan.choice.threads);
        let dispatch = |dispatch| self.outer(dispatch, plan, threads, gpu);
        let dispatches: f64 = plan.dispatches.iter().map(dispatch).sum();
        let gaps = plan.dispatches.len().saturating_sub(1) as f64 * gpu.gap;
        let reduce = if plan.choice.splits > 1 { gpu.gap + self.reduce(plan, gpu) } else { 0.0 };
        gpu.launch + dispatches + gaps + reduce
    }

    /// A dispatch, whose blocks run side by side: first the products, then the gradients are stored.
    fn outer(
        &self,
        dispatch: &OuterDispatch,
        plan: &OuterPlacement,
        threads: f64,
        gpu: &DeviceNumbers,
    ) -> f64 {
        let Config { d_in, d_out, rank, .. } = self.config;
        let blocks = dispatch.blocks.iter().zip([d_in, d_out, rank].map(|width| width.div_ceil(4)));
        let blocks = blocks.filter(|(block, _)| block.workgroups > 0);
        let (products, stores): (Vec<_>, Vec<_>) = blocks
            .map(|(block, row_vecs)| {
                let products = self.products(block, row_vecs, plan, threads, gpu);
                (products, self.store(products, block, row_vecs, plan, gpu))
            })
            .unzip();
        [products, stores].iter().map(|phases| Phase::side_by_side(phases).seconds(gpu)).sum()
    }

    /// The products of a block, one token after the other.
    fn products(
        &self,
        block: &OuterBlock,
        row_vecs: u32,
        plan: &OuterPlacement,
        threads: f64,
        gpu: &DeviceNumbers,
    ) -> Phase {
        let source = self.traffic.source;
        let tokens = f64::from(plan.split_tokens);
        let workgroups = f64::from(plan.choice.splits) * f64::from(block.workgroups);
        let (rows, quads) = (f64::from(block.rows), f64::from(block.rows / 4));
        let staged_tokens = (threads / quads).min(tokens);
        let coefficients = if plan.choice.broadcast { 4.0 * quads } else { quads };
        // Factors are single floats, two for a coefficient of the expand block.
        let staged = 8.0 * quads / threads;
        Phase {
            workgroups,
            threads,
            workgroup_memory: 16.0 * threads,
            registers: 4.0 * rows + 4.0 * LOADED_TOGETHER + 24.0,
            iterations: tokens,
            chain: gpu.loaded_latency() / LOADED_TOGETHER.min(tokens)
                + gpu.cache_latency * (1.0 + 2.0 * EXCHANGE) / staged_tokens,
            instructions: 4.0 * rows + coefficients + 8.0 + unpacking(source) + 10.0 * staged,
            loaded: threads * (4.0 * bytes(source) + 16.0 * quads + 4.0 * staged),
            cached: workgroups * tokens * threads * (4.0 * bytes(source) + 4.0 * staged),
            // Workgroups of other rows read the same at about the same time.
            memory: f64::from(self.tokens) * 4.0 * f64::from(row_vecs) * bytes(source),
            ..Phase::default()
        }
    }

    /// Storing the gradients of a block, after its products.
    fn store(
        &self,
        products: Phase,
        block: &OuterBlock,
        row_vecs: u32,
        plan: &OuterPlacement,
        gpu: &DeviceNumbers,
    ) -> Phase {
        let rows = f64::from(block.rows);
        // Gradients that are added to are loaded four at a time, before the first is stored.
        let adds = self.traffic.accumulate && plan.choice.splits == 1;
        let passes = if adds { 2.0 } else { 1.0 };
        let bytes = 16.0 * rows * passes;
        let column_blocks = (f64::from(row_vecs) / products.threads).ceil();
        let row_blocks = f64::from(block.workgroups) / column_blocks;
        Phase {
            iterations: 1.0,
            chain: if adds {
                gpu.loaded_latency() + later_groups(block.rows / 4, gpu.loaded_latency())
            } else {
                0.0
            },
            instructions: 8.0 * rows,
            loaded: 0.0,
            cached: products.workgroups * products.threads * bytes,
            // Copies of the gradients stay in the cache until they are added up.
            memory: if plan.choice.splits == 1 { row_blocks * f64::from(row_vecs) * bytes } else { 0.0 },
            ..products
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
                + if copies < KEPT * gpu.cache_bytes { 0.0 } else { 2.0 * copies },
            ..Phase::default()
        }
        .seconds(gpu)
    }

    fn gradient_bytes(&self, adds: bool) -> f64 {
        self.layout.bytes() as f64 * if adds { 2.0 } else { 1.0 }
    }
}
