//! What the device can do at most, by two small kernels: copy memory, and multiply and add.

use hydralora::device::Gpu;
use hydralora::kernel::BindingKind::{Read, Write};
use hydralora::stopwatch::Stopwatch;
use hydralora::{Error, Work};
use hydralora_benches::recorder::{Checks, Recorder};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Limits {
    /// Bytes read and written in a second by a copy of buffers larger than any cache.
    pub bandwidth: f64,
    /// f32 operations in a second, two for a multiply-add, in registers.
    pub arithmetic: f64,
}

/// Bytes of each buffer that is copied: WebGPU's default limit on a binding.
const COPIED: u64 = 128 << 20;
const ROUNDS: usize = 7;

impl Limits {
    pub fn measure(gpu: &Gpu, stopwatch: &Stopwatch) -> Result<Self, Error> {
        let mut recorder = Recorder::new(gpu, Checks::OURS);
        let buffer = |label| gpu.upload(label, &vec![1.0; COPIED as usize / 4]);
        let (from, to) = (buffer("from")?, buffer("to")?);
        let mut fastest = |wgsl: &str, grid: u32| -> Result<f64, Error> {
            let groups = [(COPIED / 16) as u32];
            let bindings = [(Read, &from), (Write, &to)];
            recorder.dispatch(wgsl.to_owned(), &[bytemuck::bytes_of(&groups)], &bindings, [grid, 1, 1]);
            let dispatches = recorder.finish();
            let mut fastest = f64::INFINITY;
            for _ in 0..ROUNDS {
                fastest = fastest.min(dispatches.time(stopwatch)?.as_secs_f64());
            }
            Ok(fastest)
        };
        // Several ways of going through memory; the best is what the device can do.
        let mut copy = f64::INFINITY;
        for grid in [256, 2048, 32768] {
            copy = copy.min(fastest(include_str!("copy.wgsl"), grid)?);
        }
        let workgroups = 8192;
        let operations = f64::from(workgroups) * 64.0 * OPERATIONS_PER_THREAD;
        let arithmetic = operations / fastest(include_str!("multiply_add.wgsl"), workgroups)?;
        Ok(Self { bandwidth: 2.0 * COPIED as f64 / copy, arithmetic })
    }

    /// The least seconds that the work can take.
    pub fn least_seconds(&self, work: &Work) -> f64 {
        (work.bytes as f64 / self.bandwidth).max(work.flops as f64 / self.arithmetic)
    }

    /// Whether memory is what binds.
    pub fn memory_bound(&self, work: &Work) -> bool {
        work.bytes as f64 / self.bandwidth > work.flops as f64 / self.arithmetic
    }
}

/// 256 rounds of 8 vec4 multiply-adds, in `multiply_add.wgsl`.
const OPERATIONS_PER_THREAD: f64 = 256.0 * 8.0 * 4.0 * 2.0;
