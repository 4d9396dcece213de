//! What a GPU can do, in numbers: the inputs of the planner's cost. Measured by a calibration, known for a
//! model of GPU, or guessed from what an adapter reveals about its class.

use super::WORKGROUP;
use crate::error::Error;

/// What a GPU can do, in numbers. Predicted times depend on nothing else about a GPU.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct DeviceNumbers {
    /// Seconds that a dispatch takes that does nothing.
    pub launch: f64,
    /// Seconds from the end of a dispatch to the start of one that reads what it has written.
    pub gap: f64,
    /// Bytes a second, those read and those written together, of a copy that no cache holds.
    pub memory_bandwidth: f64,
    /// Bytes a second that all cores read from the last cache before memory.
    pub cache_bandwidth: f64,
    /// Bytes of that cache.
    pub cache_bytes: f64,
    /// Seconds from a read to its value, from memory that is otherwise idle.
    pub memory_latency: f64,
    /// Seconds from a read to its value, from the last cache before memory.
    pub cache_latency: f64,
    /// Multiply-adds of f32 a second, over all lanes of all cores.
    pub multiply_adds: f64,
    /// Bytes a second that reads of workgroup memory and of the nearest cache bring to the lanes of all cores.
    pub load_bandwidth: f64,
    /// Bytes that have to be on their way from memory at any time for nine tenths of its bandwidth.
    pub bytes_in_flight: f64,
    /// Cores: the units that hold workgroups, with 128 lanes each. Where a vendor's unit has half of them (AMD's
    /// compute unit), two of its units are a core.
    pub cores: u32,
    /// Threads that a core holds at a time if each has some 128 registers.
    pub resident_threads: u32,
    /// Bytes of workgroup memory that a core shares out among the workgroups that it holds.
    pub workgroup_bytes: u32,
    /// 32-bit registers of a thread, beyond which compilers spill to memory.
    pub registers: u32,
    /// Rows of the parameters that a thread has on their way at a time while it reads their coefficients one by one:
    /// 4, as the shaders' source has it, or 1 if the device's compiler puts the coefficients between them.
    #[cfg_attr(feature = "serde", serde(default = "rows_of_source"))]
    pub rows_together: u32,
}

/// The rows that shaders load in a group.
const fn rows_of_source() -> u32 {
    4
}

/// Cores of the smallest GPU of Apple's M series.
const LEAST_M_CORES: u32 = 8;

/// Lanes of a core that compute at the same time, in four subgroups of 32.
pub(super) const LANES: f64 = 128.0;

/// Of the bytes in flight that nine tenths of the bandwidth take, the part that the smooth maximum of
/// [`Phase::seconds`](super::cost::Phase::seconds) says is needed if latency is the time that it takes
/// memory to deliver that many: with x times bandwidth * latency in flight it is 1 / (1 + x^-3)^(1/3) of
/// the bandwidth, which is 0.9 at x = 1.39.
const KNEE: f64 = 1.0 / 1.39;

impl DeviceNumbers {
    /// A desktop's graphics card of the middle class: what a discrete GPU is taken for that reveals nothing.
    pub const DISCRETE: Self = Self {
        launch: 4e-6,
        gap: 3e-6,
        memory_bandwidth: 650e9,
        cache_bandwidth: 3e12,
        cache_bytes: 32e6,
        memory_latency: 300e-9,
        cache_latency: 130e-9,
        multiply_adds: 14e12,
        load_bandwidth: 14e12,
        bytes_in_flight: 350e3,
        cores: 64,
        resident_threads: 512,
        workgroup_bytes: 96 << 10,
        registers: 128,
        rows_together: rows_of_source(),
    };

    /// A GPU beside a processor of Intel's or AMD's, on its memory.
    pub const INTEGRATED: Self = Self {
        launch: 8e-6,
        gap: 5e-6,
        memory_bandwidth: 60e9,
        cache_bandwidth: 300e9,
        cache_bytes: 4e6,
        memory_latency: 400e-9,
        cache_latency: 200e-9,
        multiply_adds: 1.3e12,
        load_bandwidth: 1e12,
        bytes_in_flight: 48e3,
        cores: 8,
        resident_threads: 512,
        workgroup_bytes: 64 << 10,
        registers: 128,
        rows_together: rows_of_source(),
    };

    /// A phone's GPU.
    pub const PHONE: Self = Self {
        launch: 20e-6,
        gap: 15e-6,
        memory_bandwidth: 45e9,
        cache_bandwidth: 200e9,
        cache_bytes: 2e6,
        memory_latency: 600e-9,
        cache_latency: 300e-9,
        multiply_adds: 1e12,
        load_bandwidth: 260e9,
        bytes_in_flight: 54e3,
        cores: 10,
        resident_threads: 512,
        workgroup_bytes: 32 << 10,
        registers: 128,
        rows_together: rows_of_source(),
    };

    /// A GPU of Apple's M series, all of which grow with the number of their cores.
    #[must_use]
    pub fn apple(cores: u32) -> Self {
        let each = f64::from(cores);
        Self {
            launch: 6e-6,
            gap: 4e-6,
            memory_bandwidth: 9e9 * each,
            cache_bandwidth: 25e9 * each,
            cache_bytes: 1.2e6 * each,
            memory_latency: 400e-9,
            cache_latency: 180e-9,
            multiply_adds: 177e9 * each,
            load_bandwidth: 88e9 * each,
            bytes_in_flight: 7e3 * each,
            cores,
            resident_threads: 384,
            workgroup_bytes: 64 << 10,
            registers: 128,
            rows_together: rows_of_source(),
        }
    }

    /// The numbers that the class of an adapter suggests.
    ///
    /// An adapter of the kind [`Other`](wgpu::DeviceType::Other) is classed by its vendor, and without one it is taken
    /// to be integrated. wgpu reveals neither kind nor vendor in a browser, although browsers tell the vendor: an
    /// application that knows it can put its number into `info.vendor`
    /// ([`DeviceProfile::of_adapter`](crate::DeviceProfile::of_adapter)).
    #[must_use]
    pub fn of(info: &wgpu::AdapterInfo) -> Self {
        use wgpu::DeviceType::{Cpu, DiscreteGpu, IntegratedGpu, Other, VirtualGpu};
        // Apple's GPUs call themselves integrated, from a phone's to one with 80 cores.
        if let Some(rest) = info.name.strip_prefix("Apple M") {
            let sizes = [("Ultra", 60), ("Max", 32), ("Pro", 16)];
            let size = sizes.into_iter().find(|(size, _)| rest.contains(size));
            return Self::apple(size.map_or(LEAST_M_CORES, |(_, cores)| cores));
        }
        let rows_together = if info.vendor == NVIDIA { 1 } else { rows_of_source() };
        let class = match (info.device_type, info.vendor) {
            (DiscreteGpu | VirtualGpu | Cpu, _) | (Other, NVIDIA | AMD) => Self::DISCRETE,
            (_, ARM) => Self { registers: 64, ..Self::PHONE },
            (_, QUALCOMM | IMAGINATION | SAMSUNG) => Self::PHONE,
            (Other, APPLE) => Self::apple(LEAST_M_CORES),
            (_, _) if info.name.starts_with("Apple") => Self::PHONE,
            (IntegratedGpu | Other, _) => Self::INTEGRATED,
        };
        Self { rows_together, ..class }
    }

    /// The numbers of the weakest GPU that an adapter could be, which bound the work of a dispatch: those of its
    /// class, where it says what it is. Browsers say no more than the vendor.
    pub(crate) fn least_of(info: &wgpu::AdapterInfo) -> Self {
        match (info.device_type, info.vendor) {
            (wgpu::DeviceType::Other, AMD | INTEL) => Self::INTEGRATED,
            (wgpu::DeviceType::Other, vendor) if vendor != NVIDIA => Self::PHONE,
            _ => Self::of(info),
        }
    }

    /// A graphics card that this many workgroups keep busy.
    pub(super) fn of_width(busy_workgroups: u32) -> Self {
        let usual = Self::DISCRETE;
        let times = f64::from(busy_workgroups.max(1)) / f64::from(usual.busy_workgroups());
        Self {
            memory_bandwidth: times * usual.memory_bandwidth,
            cache_bandwidth: times * usual.cache_bandwidth,
            cache_bytes: times * usual.cache_bytes,
            multiply_adds: times * usual.multiply_adds,
            load_bandwidth: times * usual.load_bandwidth,
            bytes_in_flight: times * usual.bytes_in_flight,
            cores: (times * f64::from(usual.cores)).ceil() as u32,
            ..usual
        }
    }

    /// The workgroups that all cores together hold at a time, with 64 threads each.
    #[must_use]
    pub fn busy_workgroups(&self) -> u32 {
        self.cores.saturating_mul((self.resident_threads / WORKGROUP).max(1))
    }

    /// The floating-point operations of a twentieth of a second at the full rate: one second if a dispatch
    /// reaches a twentieth of it.
    pub(super) fn dispatch_flops(&self) -> u64 {
        (self.multiply_adds / 10.0) as u64
    }

    /// Seconds from a read to its value while memory is busy.
    pub(super) fn loaded_latency(&self) -> f64 {
        self.memory_latency.max(KNEE * self.bytes_in_flight / self.memory_bandwidth)
    }

    /// Seconds for what memory and arithmetic can least take: no plan is faster.
    #[must_use]
    pub fn least_seconds(&self, work: &crate::Work) -> f64 {
        (work.bytes as f64 / self.memory_bandwidth).max(work.flops as f64 / 2.0 / self.multiply_adds)
    }

    /// Refuses numbers that no device has, which may come from a file or from a clock that stands still.
    ///
    /// # Errors
    /// A number that is not finite or not above zero.
    pub fn check(&self) -> Result<(), Error> {
        let numbers = [
            ("launch", self.launch),
            ("gap", self.gap),
            ("memory_bandwidth", self.memory_bandwidth),
            ("cache_bandwidth", self.cache_bandwidth),
            ("cache_bytes", self.cache_bytes),
            ("memory_latency", self.memory_latency),
            ("cache_latency", self.cache_latency),
            ("multiply_adds", self.multiply_adds),
            ("load_bandwidth", self.load_bandwidth),
            ("bytes_in_flight", self.bytes_in_flight),
            ("cores", self.cores.into()),
            ("resident_threads", self.resident_threads.into()),
            ("workgroup_bytes", self.workgroup_bytes.into()),
            ("registers", self.registers.into()),
            ("rows_together", self.rows_together.into()),
        ];
        for (name, value) in numbers {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::number(name, value, "finite and above zero"));
            }
        }
        Ok(())
    }
}

/// Vendors, by their PCI or Khronos numbers. Arm's compilers spill beyond 64 registers (Arm GPU Best Practices
/// Developer Guide, on register use); NVIDIA's put coefficients between rows (an expand of four tokens takes 1.5
/// times as long on an H100 as with broadcasts).
const ARM: u32 = 0x13b5;
const AMD: u32 = 0x1002;
const APPLE: u32 = 0x106b;
const INTEL: u32 = 0x8086;
const NVIDIA: u32 = 0x10de;
const QUALCOMM: u32 = 0x5143;
const IMAGINATION: u32 = 0x1010;
const SAMSUNG: u32 = 0x144d;
