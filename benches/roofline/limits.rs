//! What the device can do at most, by two small kernels: copy memory, and multiply and add.

use hydralora::device::Gpu;
use hydralora::kernel::BindingKind::{Read, Write};
use hydralora::stopwatch::Stopwatch;
use hydralora::{Error, Work, wgpu};
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

/// A copy of the same size is timed this many times over, each in a place of its own.
const PLACES: u64 = 16;

/// The buffers that are copied.
pub struct Copier<'a> {
    recorder: Recorder<'a>,
    stopwatch: &'a Stopwatch,
    from: wgpu::Buffer,
    to: wgpu::Buffer,
}

impl<'a> Copier<'a> {
    pub fn new(gpu: &'a Gpu, stopwatch: &'a Stopwatch) -> Result<Self, Error> {
        let buffer = |label| gpu.upload(label, &vec![1.0; COPIED as usize / 4]);
        let (from, to) = (buffer("from")?, buffer("to")?);
        Ok(Self { recorder: Recorder::new(gpu, Checks::OURS), stopwatch, from, to })
    }

    /// The fastest seconds of a shader on `bytes` of both buffers, in as many places as there are, up to
    /// `places`.
    fn fastest(&mut self, wgsl: &str, grid: u32, bytes: u64, places: u64) -> Result<f64, Error> {
        let groups = bytes / 16;
        let places = (COPIED / bytes.max(16)).clamp(1, places);
        for place in 0..places {
            let dims = [(place * groups) as u32, groups as u32];
            let bindings = [(Read, &self.from), (Write, &self.to)];
            self.recorder.dispatch(wgsl.to_owned(), &[bytemuck::bytes_of(&dims)], &bindings, [grid, 1, 1]);
        }
        let dispatches = self.recorder.finish();
        let mut fastest = f64::INFINITY;
        for _ in 0..ROUNDS {
            fastest = fastest.min(dispatches.time(self.stopwatch)?.as_secs_f64() / places as f64);
        }
        Ok(fastest)
    }

    /// The seconds of a dispatch that reads and writes so many bytes together, which no cache holds: what
    /// nothing with as much traffic can be much faster than.
    pub fn seconds(&mut self, bytes: u64) -> Result<f64, Error> {
        let half = (bytes / 2).next_multiple_of(16).min(COPIED);
        let mut fastest = f64::INFINITY;
        for each in [1, 4] {
            let grid = (half / 16 / 64 / each).clamp(1, 32768) as u32;
            fastest = fastest.min(self.fastest(include_str!("copy.wgsl"), grid, half, PLACES)?);
        }
        Ok(fastest)
    }
}

impl Limits {
    pub fn measure(copier: &mut Copier<'_>) -> Result<Self, Error> {
        // Several ways of going through memory; the best is what the device can do.
        let mut copy = f64::INFINITY;
        for grid in [256, 2048, 32768] {
            copy = copy.min(copier.fastest(include_str!("copy.wgsl"), grid, COPIED, 1)?);
        }
        let workgroups = 8192;
        let operations = f64::from(workgroups) * 64.0 * OPERATIONS_PER_THREAD;
        let arithmetic =
            operations / copier.fastest(include_str!("multiply_add.wgsl"), workgroups, COPIED, 1)?;
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
