//! Timing of compute passes. Like [`device`](crate::device), for stand-alone programs: it submits and waits.

use std::fmt::{self, Display};
use std::time::Duration;
// In browsers, the standard library's clock panics.
#[cfg(not(target_arch = "wasm32"))]
use std::time::Instant;

#[cfg(target_arch = "wasm32")]
use web_time::Instant;

use crate::error::Error;
use crate::gpu::scoped;
use crate::host::device::Gpu;

/// Measures device time where the device has timestamp queries, otherwise wall-clock time.
///
/// Browsers keep their clocks coarse, both of them, so that no page can spy on another. There, what is timed runs again
/// and again until it has taken long enough to be told, and the mean counts ([`Stopwatch::at_least`]).
#[derive(Debug)]
pub struct Stopwatch {
    gpu: Gpu,
    timestamps: Option<Timestamps>,
    least: Duration,
}

/// The clock of a measured time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Clock {
    /// The device's timestamps, from the start of the first dispatch to the end of the last.
    Device,
    /// The host's clock, from submission until the host sees that the device has finished: late by up to a
    /// sixty-fourth, or for very short times by some 20 microseconds; in a browser by a millisecond or more.
    Wall,
}

impl Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Device => "device time",
            Self::Wall => "wall-clock time",
        })
    }
}

#[derive(Debug)]
struct Timestamps {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    /// Nanoseconds in a tick.
    period: f64,
}

impl Stopwatch {
    /// A stopwatch for `gpu`, whose device should have been requested with `TIMESTAMP_QUERY`.
    ///
    /// # Errors
    /// Too little memory, or a lost device.
    pub fn new(gpu: &Gpu) -> Result<Self, Error> {
        let timestamped = gpu.device.features().contains(wgpu::Features::TIMESTAMP_QUERY);
        let timestamps = scoped(&gpu.device, "creating a stopwatch", || {
            timestamped.then(|| Timestamps {
                queries: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("stopwatch"),
                    ty: wgpu::QueryType::Timestamp,
                    count: 2,
                }),
                resolved: gpu.device.create_buffer(&wgpu::BufferDescriptor {
                    label: Some("stopwatch"),
                    size: 16,
                    usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                    mapped_at_creation: false,
                }),
                period: f64::from(gpu.queue.get_timestamp_period()),
            })
        })?;
        let stopwatch = Self { gpu: gpu.clone(), timestamps, least: Duration::ZERO };
        let least = if COARSE { 100 * stopwatch.resolution() } else { Duration::ZERO };
        Ok(stopwatch.at_least(least))
    }

    /// Runs what is timed again and again in one pass, until that takes at least this long, and gives the mean. By
    /// default what is timed runs once, except in browsers: there for 10 ms by the device's clock, for 100 ms by the
    /// host's.
    #[must_use]
    pub fn at_least(self, least: Duration) -> Self {
        Self { least, ..self }
    }

    /// The clock of the times.
    #[must_use]
    pub fn clock(&self) -> Clock {
        if self.timestamps.is_some() { Clock::Device } else { Clock::Wall }
    }

    /// The least difference that the clock of a browser tells.
    pub(super) fn resolution(&self) -> Duration {
        match self.clock() {
            Clock::Device => Duration::from_micros(100),
            Clock::Wall => Duration::from_millis(1),
        }
    }

    /// Encodes into a pass, submits it, waits, and returns the time that it took. Not for the web.
    ///
    /// # Errors
    /// The error of `encode`, in which case nothing is submitted; wgpu refuses the commands; the device was
    /// lost.
    pub fn time(
        &self,
        encode: impl Fn(&mut wgpu::ComputePass<'_>) -> Result<(), Error>,
    ) -> Result<Duration, Error> {
        self.gpu.finish(TIMING, self.time_async(encode))?
    }

    /// Keeps the device busy with what `encode` encodes, again and again, until it has worked for half a second in
    /// all. To be called before times that are to be compared or kept.
    ///
    /// A GPU that was idle for some seconds runs at a fraction of its clock, and comes back only under steady load: an
    /// H100 idles at 345 of 1,980 MHz, and takes 0.15 to 0.35 s of it; with 2 ms between dispatches it stays there.
    /// Nothing happens in software, where `encode` is not called. Not for the web.
    ///
    /// # Errors
    /// Those of [`Stopwatch::time`].
    pub fn warm_up(
        &self,
        encode: impl Fn(&mut wgpu::ComputePass<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.gpu.finish(TIMING, self.warm_up_async(encode))?
    }

    /// Like [`Stopwatch::warm_up`], and resolves when the device has worked for long enough. On native platforms, the
    /// caller has to poll the device meanwhile.
    ///
    /// # Errors
    /// Those of [`Stopwatch::time_async`].
    pub async fn warm_up_async(
        &self,
        encode: impl Fn(&mut wgpu::ComputePass<'_>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.gpu.device.adapter_info().device_type == wgpu::DeviceType::Cpu {
            return Ok(());
        }
        let mut repeats = 1_u32;
        let mut worked = Duration::ZERO;
        // A clock that stands still must not keep the caller.
        let mut stood = 0;
        for _ in 0..MOST_WARM_UPS {
            let time = self.once(|pass| (0..repeats).try_for_each(|_| encode(pass))).await?;
            worked += time;
            stood += u32::from(time.is_zero());
            if worked >= WARM_UP || stood >= MOST_STANDING {
                break;
            }
            if time < STEADY && repeats < MOST_REPEATS {
                repeats *= 2;
            }
        }
        Ok(())
    }

    /// Like [`Stopwatch::time`], and resolves when the time is known. On native platforms, the caller has to
    /// poll the device meanwhile.
    ///
    /// # Errors
    /// Those of [`Stopwatch::time`].
    pub async fn time_async(
        &self,
        encode: impl Fn(&mut wgpu::ComputePass<'_>) -> Result<(), Error>,
    ) -> Result<Duration, Error> {
        let mut repeats = 1_u32;
        loop {
            let time = self.once(|pass| (0..repeats).try_for_each(|_| encode(pass))).await?;
            if time >= self.least || repeats >= MOST_REPEATS {
                return Ok(time / repeats);
            }
            // A little more than seems to be needed, but not all at once, since the first time may say nothing.
            let needed = 1.25 * self.least.as_secs_f64() / time.as_secs_f64().max(1e-9);
            repeats = (f64::from(repeats) * needed.clamp(2.0, 16.0)) as u32;
        }
    }

    /// The time of what is encoded, run once.
    pub(super) async fn once(
        &self,
        encode: impl FnOnce(&mut wgpu::ComputePass<'_>) -> Result<(), Error>,
    ) -> Result<Duration, Error> {
        let timestamp_writes = self.timestamps.as_ref().map(|timestamps| wgpu::ComputePassTimestampWrites {
            query_set: &timestamps.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        let Gpu { device, queue } = &self.gpu;
        let begin = scoped(device, TIMING, || {
            let mut encoder = device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
            encode(
                &mut encoder
                    .begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes }),
            )?;
            if let Some(timestamps) = &self.timestamps {
                encoder.resolve_query_set(&timestamps.queries, 0..2, &timestamps.resolved, 0);
            }
            let commands = encoder.finish();
            let begin = self.timestamps.is_none().then(Instant::now);
            queue.submit([commands]);
            Ok(begin)
        })??;
        self.gpu.submitted_work_done().await;
        let wall = begin.map(|begin| begin.elapsed()).unwrap_or_default();
        let Some(timestamps) = &self.timestamps else { return Ok(wall) };
        let words = self.gpu.read(&timestamps.resolved).await?;
        let tick = |at: usize| u64::from(words[at].to_bits()) | u64::from(words[at + 1].to_bits()) << 32;
        let ticks = tick(2).saturating_sub(tick(0));
        Ok(Duration::from_nanos((ticks as f64 * timestamps.period) as u64))
    }
}

/// The device's time of a warm-up, and of one of its passes at least, so that what the host does between them is
/// small beside it.
const WARM_UP: Duration = Duration::from_millis(500);
const STEADY: Duration = Duration::from_millis(10);
/// The most passes of a warm-up, and the most that one of them repeats.
const MOST_WARM_UPS: u32 = 1000;
const MOST_REPEATS: u32 = 1 << 12;
/// The most passes that take no time by the device's clock.
const MOST_STANDING: u32 = 8;

/// Whether times have to be long to be told by the clock, as in browsers.
pub(super) const COARSE: bool = cfg!(target_arch = "wasm32");

/// The name of the action in errors.
const TIMING: &str = "timing a compute pass";
