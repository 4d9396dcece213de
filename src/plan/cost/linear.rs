//! The predicted time of `linear`.

use super::{EXCHANGE, EXPOSED, Phase, Traffic, bytes, later_groups, packing, unpacking};
use crate::plan::linear::{GROUP, LinearPlacement, LinearProblem, LinearWay};
use crate::plan::{DeviceNumbers, WORKGROUP};

/// Registers of a thread for indices and addresses.
const INDICES: f64 = 24.0;

/// Instructions of a thread that find, clamp and select a vec4 of a matrix.
const FETCH: f64 = 10.0;

/// How many times as fast as lanes the kernel multiplies with cooperative matrices. The units are several times as fast,
/// but the kernel waits for its loads: on an H100 it reached 28 to 37 TFLOP/s, and tiles 31.
const MATRIX_RATE: f64 = 1.0;

/// The part of the last cache that what is read twice may fill.
const REUSED: f64 = 0.8;

impl LinearProblem {
    /// The predicted seconds on a GPU.
    pub(crate) fn seconds(&self, plan: &LinearPlacement, gpu: &DeviceNumbers) -> f64 {
        let tile = &plan.tile;
        let columns = f64::from(self.target_vecs.div_ceil(tile.quads));
        let tiles = f64::from(self.tokens.div_ceil(tile.tokens));
        let workgroups = columns * tiles * f64::from(plan.choice.splits);
        let phase = Phase {
            workgroups,
            threads: f64::from(tile.threads),
            workgroup_memory: tile.memory() as f64,
            iterations: f64::from(plan.split_vecs.div_ceil(tile.depth())),
            ..Phase::default()
        };
        let products = match tile.way {
            LinearWay::Tiled { depth } => self.tiled(phase, plan, depth, gpu),
            LinearWay::Direct { lanes, step, .. } => self.direct(phase, plan, [lanes, step], gpu),
            LinearWay::Matrices { size } => self.matrices(phase, size, gpu),
        };
        // Workgroups of the same tokens run one after the other. The weights come from memory again for those
        // tokens that are not resident with the first, unless the cache keeps them all.
        let weight = self.weight_bytes();
        let (resident, _) = phase.occupancy(gpu);
        let passes = if weight < REUSED * gpu.cache_bytes {
            1.0
        } else {
            (workgroups / (resident * f64::from(gpu.cores))).clamp(1.0, tiles)
        };
        let products = Phase {
            cached: products.cached + (tiles - passes) * weight,
            memory: self.source_bytes() + passes * weight,
            ..products
        };
        let reduce = if plan.reduce.is_some() { gpu.gap + self.reduce(plan, gpu) } else { 0.0 };
        gpu.launch + products.seconds(gpu) + self.store(phase, plan, gpu) + reduce
    }

    /// Products of tiles in workgroup memory.
    fn tiled(&self, phase: Phase, plan: &LinearPlacement, depth: u32, gpu: &DeviceNumbers) -> Phase {
        let Traffic { source, matrix, .. } = self.traffic;
        let tile = &plan.tile;
        let [tokens, quads, depth] = [tile.thread_tokens, tile.thread_quads, depth].map(f64::from);
        // vec4s of the tiles.
        let of_source = f64::from(tile.tokens) * depth;
        let of_weight = 4.0 * f64::from(tile.quads) * depth;
        let fetched = of_source * (FETCH + unpacking(source)) + of_weight * (FETCH + unpacking(matrix));
        let source_bytes = 4.0 * bytes(source) * of_source;
        let weight_bytes = 4.0 * bytes(matrix) * of_weight;
        let read = depth * (tokens + 4.0 * quads);
        Phase {
            registers: 16.0 * quads * tokens / 4.0 + 4.0 * tokens + 16.0 + INDICES,
            chain: gpu.loaded_latency()
                + EXCHANGE * gpu.cache_latency
                + EXPOSED * depth * EXCHANGE * gpu.cache_latency,
            instructions: fetched / phase.threads + read + 16.0 * depth * tokens * quads,
            // Tiles are written once and read by every thread.
            loaded: source_bytes + weight_bytes + 16.0 * (of_source + of_weight + phase.threads * read),
            shared: source_bytes,
            ..phase
        }
    }

    /// Products straight from the tensors.
    fn direct(
        &self,
        phase: Phase,
        plan: &LinearPlacement,
        [lanes, step]: [u32; 2],
        gpu: &DeviceNumbers,
    ) -> Phase {
        let Traffic { source, matrix, .. } = self.traffic;
        let tile = &plan.tile;
        let [tokens, quads, steps] = [tile.thread_tokens, tile.thread_quads, step].map(f64::from);
        let held = steps * f64::from(tile.thread_tokens.div_ceil(tile.broadcast_lanes));
        let received = if tile.broadcast_lanes > 1 { 4.0 * steps * tokens } else { 0.0 };
        let weights = 4.0 * steps * quads;
        Phase {
            registers: 4.0 * (tokens * quads + weights + held) + INDICES,
            // Four rows of weights for each quad and step: an H100 took as long as if each load waited for a part of the
            // one before it.
            chain: gpu.loaded_latency()
                + later_groups(4 * step * tile.thread_quads, gpu.loaded_latency())
                + later_groups(tile.thread_tokens.div_ceil(GROUP), gpu.cache_latency),
            instructions: weights * (FETCH + unpacking(matrix))
                + held * (FETCH + unpacking(source))
                + received
                + 16.0 * steps * tokens * quads,
            loaded: 4.0 * phase.threads * (weights * bytes(matrix) + held * bytes(source)),
            shared: 4.0 * f64::from(lanes) * steps * tokens * bytes(source),
            ..phase
        }
    }

    /// Products of cooperative matrices. How fast a GPU multiplies them is not among its numbers.
    fn matrices(&self, phase: Phase, size: u32, gpu: &DeviceNumbers) -> Phase {
        // The elements of a matrix that each of a part's threads holds, for four parts in a workgroup.
        let held = f64::from(size * size) / (phase.threads / 4.0);
        let read = 4.0 * 4.0 * f64::from(size * size) * bytes(self.traffic.matrix);
        Phase {
            registers: 4.0 * held + 4.0 * held / 2.0 + INDICES,
            chain: gpu.loaded_latency(),
            instructions: 4.0 * FETCH + 4.0 * held * f64::from(size) / MATRIX_RATE,
            loaded: read,
            shared: read / 2.0,
            ..phase
        }
    }

    /// Adding up the lanes' sums, and storing those of all.
    fn store(&self, phase: Phase, plan: &LinearPlacement, gpu: &DeviceNumbers) -> f64 {
        let tile = &plan.tile;
        let lanes = match tile.way {
            LinearWay::Direct { lanes, .. } => f64::from(lanes),
            LinearWay::Tiled { .. } | LinearWay::Matrices { .. } => 1.0,
        };
        let sums = f64::from(tile.tokens * tile.quads) / phase.threads * lanes;
        // Every thread adds up what all lanes have of its share.
        let (exchanges, added) = if lanes > 1.0 {
            (f64::from(tile.thread_tokens.div_ceil(GROUP)), 2.0 * sums)
        } else {
            (0.0, 0.0)
        };
        let stored = (sums / lanes).ceil();
        // What is added to is loaded four tokens at a time, before the first of them is stored; or one by one, where
        // threads share sums.
        let groups = match tile.way {
            LinearWay::Tiled { .. } | LinearWay::Direct { lanes: 1, .. } => {
                f64::from(tile.thread_tokens.div_ceil(4))
            }
            LinearWay::Direct { .. } | LinearWay::Matrices { .. } => stored,
        };
        let split = plan.reduce.map(|(_, bytes)| bytes as f64);
        let (chain, stores) = match split {
            Some(_) => (0.0, 6.0),
            None => self.finish(gpu),
        };
        Phase {
            iterations: 1.0,
            registers: 4.0 * sums + INDICES,
            chain: 2.0 * exchanges * EXCHANGE * gpu.cache_latency + groups * chain,
            instructions: 4.0 * added + stored * (FETCH + stores),
            loaded: 16.0 * phase.threads * added,
            cached: split.unwrap_or(0.0),
            memory: if split.is_some() { 0.0 } else { self.target_bytes() },
            ..phase
        }
        .seconds(gpu)
    }

    /// Adding up what the splits left.
    fn reduce(&self, plan: &LinearPlacement, gpu: &DeviceNumbers) -> f64 {
        let splits = f64::from(plan.choice.splits);
        let sums = plan.reduce.map_or(0.0, |(_, bytes)| bytes as f64);
        let (chain, stores) = self.finish(gpu);
        Phase {
            workgroups: f64::from(self.target_vecs.div_ceil(WORKGROUP)) * f64::from(self.tokens),
            threads: f64::from(WORKGROUP),
            iterations: 1.0,
            chain: gpu.cache_latency
                + later_groups(plan.choice.splits.div_ceil(4), gpu.cache_latency)
                + chain,
            instructions: 8.0 * splits + FETCH + stores,
            cached: sums,
            // Sums stay in the cache until they are added up.
            memory: self.target_bytes() + if sums < REUSED * gpu.cache_bytes { 0.0 } else { 2.0 * sums },
            ..Phase::default()
        }
        .seconds(gpu)
    }

    /// The latency of what sums are added to, and the instructions of a complete vec4 of the target.
    fn finish(&self, gpu: &DeviceNumbers) -> (f64, f64) {
        let Traffic { target, accumulate, .. } = self.traffic;
        if accumulate {
            (gpu.memory_latency, packing(target) + unpacking(target))
        } else {
            (0.0, packing(target))
        }
    }

    fn source_bytes(&self) -> f64 {
        4.0 * f64::from(self.tokens) * f64::from(self.source_vecs) * bytes(self.traffic.source)
    }

    fn weight_bytes(&self) -> f64 {
        16.0 * f64::from(self.source_vecs) * f64::from(self.target_vecs) * bytes(self.traffic.matrix)
    }

    /// With those of the bias.
    fn target_bytes(&self) -> f64 {
        let Traffic { target, accumulate, .. } = self.traffic;
        let passes = if accumulate { 2.0 } else { 1.0 };
        let bias = if self.bias { 16.0 } else { 0.0 };
        f64::from(self.target_vecs) * (4.0 * f64::from(self.tokens) * passes * bytes(target) + bias)
    }
}
