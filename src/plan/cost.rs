//! The planner's cost model for GPUs, in seconds. It ranks plans; as a prediction of time it is rough:
//! one GPU, an H100, has been measured.
//!
//! A kernel is a sequence of phases. In each, all workgroups that the cores hold go through the same
//! iterations in step, and five things take time at once: the dependent latencies of a thread, the issue of
//! its instructions, the bytes that go through the cores' load pipes, through the last cache, and through
//! memory. The phase takes as long as the longest of them, a little more where two are about equal.

mod fused;
mod linear;
mod outer;

use super::DeviceNumbers;
use super::device::LANES;
use crate::element::Element;

/// The exponent of the smooth maximum: with two equal terms a phase takes 1.26 times as long as with one.
const SHARPNESS: i32 = 3;

/// The part of a round trip that is left of each group of loads after the first, where nothing but the
/// compiler's order of instructions makes it wait: groups are written out one after the other, and some
/// of each is issued early.
const EXPOSED: f64 = 0.3;

/// The time of a pair of barriers with an exchange through workgroup memory between them, and of a shuffle
/// that the next one waits for, as parts of a round trip to the last cache (about 30 and 15 ns of 150).
const EXCHANGE: f64 = 0.2;
const SHUFFLE: f64 = 0.1;

/// The workgroups of a core that share what one of them has brought into the nearest cache, at most.
const SHARERS: f64 = 2.0;

/// A dispatch or a part of one, in which every workgroup does the same.
#[derive(Debug, Clone, Copy, Default)]
struct Phase {
    /// Workgroups of the dispatch.
    workgroups: f64,
    /// Threads of a workgroup.
    threads: f64,
    /// Bytes of workgroup memory of a workgroup.
    workgroup_memory: f64,
    /// Registers of a thread.
    registers: f64,
    /// Iterations of each workgroup.
    iterations: f64,
    /// Seconds of an iteration in which a thread only waits for values.
    chain: f64,
    /// Instructions of a thread in an iteration.
    instructions: f64,
    /// Bytes of a workgroup in an iteration that go from the nearest cache or workgroup memory to its lanes.
    loaded: f64,
    /// Bytes of a workgroup in an iteration that neighbours on its core read too, from the last cache.
    shared: f64,
    /// Bytes of all workgroups and iterations together between the last cache and the cores, beside `shared`.
    cached: f64,
    /// Bytes of all workgroups and iterations together from and to memory.
    memory: f64,
}

impl Phase {
    /// The workgroups that a core holds at a time, and how often all cores together are filled.
    fn occupancy(&self, gpu: &DeviceNumbers) -> (f64, f64) {
        let cores = f64::from(gpu.cores.max(1));
        let by_threads = (f64::from(gpu.resident_threads) / self.threads).floor();
        let by_memory = (f64::from(gpu.workgroup_bytes) / self.workgroup_memory.max(1.0)).floor();
        let given = (self.workgroups / cores).ceil();
        let resident = by_threads.min(by_memory).min(given).max(1.0);
        (resident, (self.workgroups / (cores * resident)).max(1.0))
    }

    /// Several that run side by side in one dispatch, as one: a workgroup does what they do on average.
    fn side_by_side(phases: &[Self]) -> Self {
        let sum = |of: fn(&Self) -> f64| phases.iter().map(of).sum::<f64>();
        let most = |of: fn(&Self) -> f64| phases.iter().map(of).fold(0.0, f64::max);
        let workgroups = sum(|phase| phase.workgroups).max(1.0);
        let mean = |of: fn(&Self) -> f64| {
            phases.iter().map(|phase| phase.workgroups * of(phase)).sum::<f64>() / workgroups
        };
        Self {
            workgroups,
            threads: most(|phase| phase.threads),
            workgroup_memory: most(|phase| phase.workgroup_memory),
            registers: most(|phase| phase.registers),
            iterations: mean(|phase| phase.iterations),
            chain: mean(|phase| phase.chain),
            instructions: mean(|phase| phase.instructions),
            loaded: mean(|phase| phase.loaded),
            shared: mean(|phase| phase.shared),
            cached: sum(|phase| phase.cached),
            memory: sum(|phase| phase.memory),
        }
    }

    /// The predicted seconds.
    fn seconds(&self, gpu: &DeviceNumbers) -> f64 {
        let cores = f64::from(gpu.cores.max(1));
        let (resident, rounds) = self.occupancy(gpu);
        // What does not fit the registers is written and read again, at the nearest cache.
        let spilled = (self.registers - f64::from(gpu.registers)).max(0.0);
        let loaded = self.loaded + 8.0 * spilled * self.threads;
        let chain = self.chain + if spilled > 0.0 { EXCHANGE * gpu.cache_latency } else { 0.0 };
        let instructions = self.instructions + 2.0 * spilled;
        // A core issues an instruction for all its lanes at a time; a thread alone has no more than its turn.
        let issue = instructions * LANES * cores / gpu.multiply_adds;
        let turns = (resident * self.threads / LANES).max(1.0);
        let sharers = resident.min(SHARERS);
        let each = rounds * self.iterations;
        smooth_maximum([
            each * (chain + issue),
            each * issue * turns,
            each * loaded * resident * cores / gpu.load_bandwidth,
            (self.workgroups * self.iterations * self.shared / sharers + self.cached + self.memory)
                / gpu.cache_bandwidth,
            self.memory / gpu.memory_bandwidth,
        ])
    }
}

/// The largest, or a little more.
fn smooth_maximum(values: [f64; 5]) -> f64 {
    values.map(|value| value.powi(SHARPNESS)).iter().sum::<f64>().powf(1.0 / f64::from(SHARPNESS))
}

/// The waiting for `groups` groups of loads that are written one behind the other, after the first of them.
fn later_groups(groups: u32, latency: f64) -> f64 {
    EXPOSED * f64::from(groups.saturating_sub(1)) * latency
}

/// The bytes and instructions of the tensors' elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    /// What is read: x or g.
    pub(crate) source: Element,
    /// What the source is multiplied with: the parameters.
    pub(crate) matrix: Element,
    /// What is written: y or dx.
    pub(crate) target: Element,
    /// Whether the results are added to what is there.
    pub(crate) accumulate: bool,
}

fn bytes(element: Element) -> f64 {
    element.bytes() as f64
}

/// Instructions of a thread that turn four loaded elements into f32.
fn unpacking(element: Element) -> f64 {
    match element {
        Element::F32 => 0.0,
        Element::F16 | Element::Bf16 => 4.0,
    }
}

/// Instructions of a thread that store four elements: those of f32, and what forward has more in half precision, less
/// what unpacks its loads, in what NVIDIA's (`sm_90`) and AMD's (gfx1100) compilers make of it. Rounding to half precision
/// keeps infinities and NaN by hand.
fn packing(element: Element) -> f64 {
    match element {
        Element::F32 => 6.0,
        Element::F16 => 47.0,
        Element::Bf16 => 42.0,
    }
}

#[cfg(test)]
mod tests;
