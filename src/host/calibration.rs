//! Measures what a device can do, so that plans are made for it and not for its class. For stand-alone
//! programs, or an application that asks for it once: measuring submits and waits.

use std::cell::Cell;

use bytemuck::{Pod, Zeroable};
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::gpu::{Scopes, layout_entry, scoped};
use crate::host::device::Gpu;
use crate::host::stopwatch::{COARSE, Clock, Stopwatch};
use crate::kernel::BindingKind;
use crate::plan::DeviceNumbers;

/// What was measured on a device.
///
/// [`DeviceProfile::calibrated`](crate::DeviceProfile::calibrated) takes the numbers;
/// [`Tuner::calibrate`](crate::tuner::Tuner::calibrate) measures them and keeps them in the tuning file.
/// Measuring takes about a second: half of it wakes a GPU ([`Stopwatch::warm_up`]), since at the clock of an idle one
/// plans would be made for another device, and most of the rest compiles five small pipelines. The device works for
/// [`Calibration::seconds`] of it.
///
/// The sizes of caches, of register files and of workgroup memory, and the threads that a core holds, are not
/// measured: they are those of the device's class ([`DeviceNumbers::of`]).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Calibration {
    /// The numbers.
    pub numbers: DeviceNumbers,
    /// The clock that they were measured by. By the host's clock and by those of browsers, the launch of a
    /// dispatch alone in its pass cannot be told from other work, and is taken to be as long as that of one after another.
    pub clock: Clock,
    /// Seconds that the device worked for all probes together, by that clock, besides what woke it.
    #[serde(default)]
    pub seconds: f64,
    /// Bytes a second that 1, 2, 4, .. workgroups of 64 threads together read from memory, each thread 16 bytes at a
    /// time; zero for numbers of workgroups that were not tried.
    #[serde(default)]
    pub bandwidths: [f64; WALKS],
}

/// Bytes of each of the two buffers of the probes, on a graphics card, which is more than caches hold; on
/// other GPUs; on what may be a phone's; and on software devices.
const BYTES: [u64; 4] = [128 << 20, 64 << 20, 32 << 20, 16 << 20];
/// Bytes that the last cache holds, and the nearest one does not when a single workgroup reads them.
const CACHED: u64 = 1 << 20;
/// The part of the last cache that all workgroups read together: so much that the nearest caches hold little of it,
/// although each core's workgroups pass over the same bytes.
const CACHE_PART: f64 = 0.25;
/// Runs of each probe, of which the fastest counts; fewer on what may be a phone's GPU.
const RUNS: [usize; 2] = [3, 2];
/// Workgroups that fill any GPU, for rates of arithmetic and of reads; and any processor.
const MANY: u32 = 4096;
/// The numbers of workgroups that walk: 1, 2, 4, .. up to `MANY`.
const WALKS: usize = MANY.ilog2() as usize + 1;
const MANY_IN_SOFTWARE: u32 = 64;
/// Workgroups of the copy.
const COPIERS: u32 = 8192;
/// The most copies, one after the other, until a coarse clock can tell them.
const MOST_COPIES: u32 = 64;
/// Dispatches that do nothing, one after the other.
const DISPATCHES: u32 = 20;
/// As many as the coarse clock of a browser can tell.
const MANY_DISPATCHES: u32 = 2000;
/// Multiply-adds of a thread, and bytes that it reads from workgroup memory, in a step of their probes.
const MULTIPLY_ADDS: f64 = 4.0 * 8.0 * 4.0;
const READ_BYTES: f64 = 8.0 * 16.0;
/// Bytes that a workgroup of 64 threads has in flight in a walk.
const WALKED: f64 = 64.0 * 16.0;
/// The part of the bandwidth that counts as reached.
const REACHED: f64 = 0.9;

impl Calibration {
    /// Measures the device, and waits for it. Not for the web.
    ///
    /// # Errors
    /// Too little memory, a device that is lost, or a clock that stands still.
    pub fn measure(gpu: &Gpu) -> Result<Self, Error> {
        gpu.finish("calibrating", Self::measure_async(gpu))?
    }

    /// Measures the device. On native platforms, the caller has to poll the device meanwhile;
    /// [`Calibration::measure`] does so.
    ///
    /// # Errors
    /// Those of [`Calibration::measure`].
    pub async fn measure_async(gpu: &Gpu) -> Result<Self, Error> {
        let class = DeviceNumbers::of(&gpu.device.adapter_info());
        let bench = Bench::new(gpu)?;
        let arithmetic =
            bench.pipeline("probe multiply_add", include_str!("probe/multiply_add.wgsl")).await?;
        let many = bench.many;
        bench.warm_up(&arithmetic).await?;
        let all = bench.step(&arithmetic, many, bench.bytes).await?;
        let one = bench.step(&arithmetic, 1, bench.bytes).await?;
        let cores = (f64::from(many) * one / all).round().clamp(1.0, f64::from(many));

        let nothing = bench.pipeline("probe nothing", include_str!("probe/nothing.wgsl")).await?;
        let first = bench.dispatches(&nothing, 1).await?;
        let dispatches = if COARSE { MANY_DISPATCHES } else { DISPATCHES };
        let more = bench.dispatches(&nothing, 1 + dispatches).await?;
        let gap = (more - first).max(first / 100.0) / f64::from(dispatches);
        let clock = bench.stopwatch.clock();
        // By a coarse clock or the host's, it cannot be told from the gap.
        let alone = clock == Clock::Device && !COARSE;
        let launch = if alone { first } else { gap };

        let copy = bench.pipeline("probe copy", include_str!("probe/copy.wgsl")).await?;
        let copied = bench.copy(&copy).await?;
        let walk = bench.pipeline("probe walk", include_str!("probe/walk.wgsl")).await?;
        let bandwidths = bench.walks(&walk).await?;
        let [memory_latency, bytes_in_flight] = [WALKED / bandwidths[0].1, flight_of(&bandwidths)];
        let cache_latency = bench.step(&walk, 1, CACHED).await?;
        let part = ((CACHE_PART * class.cache_bytes) as u64).next_power_of_two().max(CACHED);
        let cached = bench.step(&walk, many, part).await?;
        let read = bench.pipeline("probe workgroup_read", include_str!("probe/workgroup_read.wgsl")).await?;
        let read = bench.step(&read, many, bench.bytes).await?;

        let threads = 128.0 * f64::from(many);
        let numbers = DeviceNumbers {
            launch: rounded(launch),
            gap: rounded(gap),
            memory_bandwidth: rounded(2.0 * bench.bytes as f64 / copied),
            cache_bandwidth: rounded(WALKED * f64::from(many) / cached),
            memory_latency: rounded(memory_latency),
            cache_latency: rounded(cache_latency),
            multiply_adds: rounded(MULTIPLY_ADDS * threads / all),
            load_bandwidth: rounded(READ_BYTES * threads / read),
            bytes_in_flight: rounded(bytes_in_flight),
            cores: cores as u32,
            ..class
        };
        numbers.check()?;
        let mut curve = [0.0; WALKS];
        for (rate, (_, bandwidth)) in curve.iter_mut().zip(bandwidths) {
            *rate = rounded(bandwidth);
        }
        Ok(Self { numbers, clock, seconds: rounded(bench.spent.get()), bandwidths: curve })
    }
}

/// A number to three digits. It is no more exact than that, and files give it back bit for bit, so that plans
/// do not change between one run and the next.
fn rounded(number: f64) -> f64 {
    format!("{number:.2e}").parse().unwrap_or(number)
}

/// `struct Dims` in `probe/bindings.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Dims {
    vecs: u32,
    steps: u32,
    first: u32,
    unused: u32,
}

/// The device with what all probes are bound to.
struct Bench<'a> {
    gpu: &'a Gpu,
    stopwatch: Stopwatch,
    /// Bytes of the source and of the target, a power of two.
    bytes: u64,
    /// Workgroups that fill the device.
    many: u32,
    uniform: wgpu::Buffer,
    layout: wgpu::BindGroupLayout,
    bindings: wgpu::BindGroup,
    /// Runs of each probe.
    runs: usize,
    /// The vec4 behind the last one that was read, so that no cache has what is read next.
    next: Cell<u32>,
    /// Seconds of all runs so far.
    spent: Cell<f64>,
}

impl<'a> Bench<'a> {
    fn new(gpu: &'a Gpu) -> Result<Self, Error> {
        let limits = gpu.device.limits();
        let most = limits.max_storage_buffer_binding_size.min(limits.max_buffer_size).max(CACHED);
        let info = gpu.device.adapter_info();
        let [large, medium, small, software] = BYTES;
        let [runs, fewer] = RUNS;
        let slow = DeviceNumbers::least_of(&info).multiply_adds <= DeviceNumbers::PHONE.multiply_adds;
        let (bytes, many, runs) = match info.device_type {
            wgpu::DeviceType::Cpu => (software, MANY_IN_SOFTWARE, runs),
            _ if slow => (small, MANY, fewer),
            wgpu::DeviceType::DiscreteGpu | wgpu::DeviceType::VirtualGpu => (large, MANY, runs),
            _ => (medium, MANY, runs),
        };
        let bytes = bytes.min(1 << most.ilog2());
        let source = gpu.zeroed("probe source", bytes as usize / 4)?;
        let target = gpu.zeroed("probe target", bytes as usize / 4)?;
        let (uniform, layout, bindings) = scoped(&gpu.device, "binding the probes", || {
            let uniform = gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("probe steps"),
                size: size_of::<Dims>() as u64,
                usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
                mapped_at_creation: false,
            });
            let kinds = [BindingKind::Uniform, BindingKind::Read, BindingKind::Write];
            let layout = gpu.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor {
                label: Some("probe"),
                entries: &[0, 1, 2].map(|at| layout_entry(at, kinds[at as usize])),
            });
            let entries = [(0, &uniform), (1, &source), (2, &target)].map(|(binding, buffer)| {
                wgpu::BindGroupEntry { binding, resource: buffer.as_entire_binding() }
            });
            let bindings = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: Some("probe"),
                layout: &layout,
                entries: &entries,
            });
            (uniform, layout, bindings)
        })?;
        let stopwatch = Stopwatch::new(gpu)?;
        let (next, spent) = (Cell::new(0), Cell::new(0.0));
        Ok(Self { gpu, stopwatch, bytes, many, uniform, layout, bindings, runs, next, spent })
    }

    /// A probe. It has all of wgpu's checks: what they cost is small beside what a step does.
    async fn pipeline(&self, label: &'static str, wgsl: &str) -> Result<wgpu::ComputePipeline, Error> {
        let device = &self.gpu.device;
        let scopes = Scopes::push(device, &format!("compiling {label}"));
        let label = Some(label);
        let text = format!("{}{wgsl}", include_str!("probe/bindings.wgsl"));
        let source = wgpu::ShaderSource::Wgsl(text.into());
        let module = device.create_shader_module(wgpu::ShaderModuleDescriptor { label, source });
        let layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label,
            bind_group_layouts: &[Some(&self.layout)],
            ..Default::default()
        });
        let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label,
            layout: Some(&layout),
            module: &module,
            entry_point: Some("main"),
            compilation_options: wgpu::PipelineCompilationOptions::default(),
            cache: None,
        });
        scopes.report(pipeline).await
    }

    /// Seconds between two times that can be told from none.
    fn telling(&self) -> f64 {
        match self.stopwatch.clock() {
            _ if COARSE => 20.0 * self.stopwatch.resolution().as_secs_f64(),
            Clock::Device => 5e-5,
            Clock::Wall => 1e-3,
        }
    }

    /// Wakes a GPU.
    async fn warm_up(&self, pipeline: &wgpu::ComputePipeline) -> Result<(), Error> {
        let dims = Dims { vecs: (self.bytes / 16) as u32, steps: 1 << 8, first: 0, unused: 0 };
        self.gpu.queue.write_buffer(&self.uniform, 0, bytemuck::bytes_of(&dims));
        let run = |pass: &mut wgpu::ComputePass<'_>| {
            pass.set_pipeline(pipeline);
            pass.set_bind_group(0, &self.bindings, &[]);
            pass.dispatch_workgroups(self.many, 1, 1);
            Ok(())
        };
        self.stopwatch.warm_up_async(run).await
    }

    /// Seconds of the fastest of a few runs, each of `steps` steps in the first `bytes` of the source.
    async fn run(
        &self,
        pipeline: &wgpu::ComputePipeline,
        [workgroups, dispatches, steps]: [u32; 3],
        bytes: u64,
    ) -> Result<f64, Error> {
        let mut fastest = f64::INFINITY;
        for _ in 0..self.runs {
            let vecs = (bytes.min(self.bytes) / 16) as u32;
            let first = self.next.get();
            self.next.set(first.wrapping_add(steps.wrapping_mul(64 * (workgroups + 1))));
            let dims = Dims { vecs, steps, first, unused: 0 };
            self.gpu.queue.write_buffer(&self.uniform, 0, bytemuck::bytes_of(&dims));
            // Once, because caches would have what is read again.
            let time = self.stopwatch.once(|pass| {
                pass.set_pipeline(pipeline);
                pass.set_bind_group(0, &self.bindings, &[]);
                for _ in 0..dispatches {
                    pass.dispatch_workgroups(workgroups, 1, 1);
                }
                Ok(())
            });
            let time = time.await?.as_secs_f64();
            self.spent.set(self.spent.get() + time);
            fastest = fastest.min(time);
        }
        Ok(fastest)
    }

    /// Seconds of a step of all workgroups together: those that some more of them take. More and more are
    /// tried until they can be told by the clock, so that slow devices take little longer than fast ones.
    async fn step(
        &self,
        pipeline: &wgpu::ComputePipeline,
        workgroups: u32,
        bytes: u64,
    ) -> Result<f64, Error> {
        const MOST_STEPS: u32 = 1 << 12;
        let enough = self.telling();
        let mut steps = 1;
        loop {
            let short = self.run(pipeline, [workgroups, 1, steps], bytes).await?;
            let long = self.run(pipeline, [workgroups, 1, 5 * steps], bytes).await?;
            if long - short > enough {
                return Ok((long - short) / f64::from(4 * steps));
            }
            if steps >= MOST_STEPS {
                return Ok(long / f64::from(5 * steps));
            }
            steps *= 4;
        }
    }

    /// Seconds of so many dispatches that do nothing.
    async fn dispatches(&self, nothing: &wgpu::ComputePipeline, count: u32) -> Result<f64, Error> {
        self.run(nothing, [1, count, 0], self.bytes).await
    }

    /// Seconds of a copy of the whole source.
    async fn copy(&self, copy: &wgpu::ComputePipeline) -> Result<f64, Error> {
        let vecs = (self.bytes / 16) as u32;
        let workgroups = COPIERS.min(vecs / 64);
        let mut dispatches = 1;
        loop {
            let shape = [workgroups, dispatches, vecs / (64 * workgroups)];
            let time = self.run(copy, shape, self.bytes).await?;
            if !COARSE || time > self.telling() || dispatches >= MOST_COPIES {
                return Ok(time / f64::from(dispatches));
            }
            dispatches *= 4;
        }
    }

    /// The bytes in flight and the bandwidths of walks by more and more workgroups, beginning with one.
    async fn walks(&self, walk: &wgpu::ComputePipeline) -> Result<Vec<(f64, f64)>, Error> {
        let mut bandwidths: Vec<(f64, f64)> = Vec::new();
        let mut workgroups = 1;
        while workgroups <= self.many {
            let step = self.step(walk, workgroups, self.bytes).await?;
            let flight = WALKED * f64::from(workgroups);
            bandwidths.push((flight, flight / step));
            workgroups *= 2;
        }
        Ok(bandwidths)
    }
}

/// The bytes in flight at which most of the bandwidth is first reached, between those that were tried.
fn flight_of(bandwidths: &[(f64, f64)]) -> f64 {
    let most = bandwidths.iter().map(|&(_, bandwidth)| bandwidth).fold(0.0, f64::max);
    let reached = REACHED * most;
    let at = bandwidths.iter().position(|&(_, bandwidth)| bandwidth >= reached).unwrap_or(0);
    let (flight, bandwidth) = bandwidths.get(at).copied().unwrap_or_default();
    let Some(&(less, slower)) = at.checked_sub(1).and_then(|before| bandwidths.get(before)) else {
        return flight;
    };
    less + (flight - less) * (reached - slower) / (bandwidth - slower)
}

#[cfg(test)]
mod tests {
    use super::flight_of;

    #[test]
    fn the_bytes_in_flight_lie_between_those_that_were_tried() {
        let bandwidths = [(1.0, 10.0), (2.0, 20.0), (4.0, 40.0), (8.0, 50.0), (16.0, 50.0)];
        assert_eq!(flight_of(&bandwidths), 6.0);
        assert_eq!(flight_of(&bandwidths[..3]), 3.6);
        assert_eq!(flight_of(&bandwidths[..1]), 1.0);
    }
}
