//! GPUs whose numbers are known from publications, or assumed. Of these, the H100 alone has run the library.

use hydralora::{DeviceNumbers, DeviceProfile, wgpu};
use wgpu::Backend::{Metal, Vulkan};
use wgpu::DeviceType::{DiscreteGpu, IntegratedGpu};

/// A model of GPU.
pub struct Gpu {
    pub name: &'static str,
    /// What its adapter reveals: kind, backend and the vendor's number.
    kind: wgpu::DeviceType,
    backend: wgpu::Backend,
    vendor: u32,
    /// The smallest subgroup.
    subgroup_lanes: u32,
    /// Bytes of workgroup memory that a workgroup may have.
    workgroup_limit: u32,
    /// What is known of it, or assumed.
    numbers: DeviceNumbers,
    /// Where the numbers come from.
    pub sources: &'static str,
}

impl Gpu {
    /// The profile with the numbers.
    pub fn calibrated(&self) -> DeviceProfile {
        self.uncalibrated().calibrated(self.numbers)
    }

    /// The profile that an adapter of this GPU gives.
    pub fn uncalibrated(&self) -> DeviceProfile {
        let info = wgpu::AdapterInfo {
            name: self.name.to_owned(),
            vendor: self.vendor,
            ..wgpu::AdapterInfo::new(self.kind, self.backend)
        };
        let limits = wgpu::Limits {
            max_compute_workgroup_storage_size: self.workgroup_limit,
            max_storage_buffer_binding_size: 1 << 31,
            max_buffer_size: 1 << 31,
            ..wgpu::Limits::default()
        };
        let numbers = DeviceNumbers::of(&info);
        let profile = DeviceProfile::new(limits, numbers.busy_workgroups());
        DeviceProfile { subgroup_lanes: self.subgroup_lanes, ..profile.calibrated(numbers) }
    }
}

const NVIDIA: u32 = 0x10de;
const AMD: u32 = 0x1002;
const INTEL: u32 = 0x8086;
const QUALCOMM: u32 = 0x5143;
const ARM: u32 = 0x13b5;

const H100: DeviceNumbers = DeviceNumbers {
    launch: 2.5e-6,
    gap: 2e-6,
    memory_bandwidth: 3e12,
    cache_bandwidth: 5.5e12,
    cache_bytes: 50e6,
    memory_latency: 342e-9,
    cache_latency: 150e-9,
    multiply_adds: 29.7e12,
    load_bandwidth: 29.7e12,
    bytes_in_flight: 2.16e6,
    cores: 132,
    resident_threads: 512,
    workgroup_bytes: 228 << 10,
    registers: 128,
    rows_together: 1,
};

pub const GPUS: [Gpu; 8] = [
    Gpu {
        name: "H100 SXM",
        kind: DiscreteGpu,
        backend: Vulkan,
        vendor: NVIDIA,
        subgroup_lanes: 32,
        workgroup_limit: 48 << 10,
        numbers: H100,
        sources: "vendor: 132 SMs, 1.755 GHz, 3.35 TB/s, 50 MB; arXiv 2402.13499: latencies of 265 and 600 cycles; \
                  NVIDIA's CCCL: bytes in flight; the rest assumed",
    },
    Gpu {
        name: "H200",
        kind: DiscreteGpu,
        backend: Vulkan,
        vendor: NVIDIA,
        subgroup_lanes: 32,
        workgroup_limit: 48 << 10,
        numbers: DeviceNumbers { memory_bandwidth: 4.3e12, bytes_in_flight: 3.1e6, ..H100 },
        sources: "as H100, with 4.8 TB/s",
    },
    Gpu {
        name: "RTX 4090",
        kind: DiscreteGpu,
        backend: Vulkan,
        vendor: NVIDIA,
        subgroup_lanes: 32,
        workgroup_limit: 48 << 10,
        numbers: DeviceNumbers {
            memory_bandwidth: 0.93e12,
            cache_bandwidth: 5e12,
            cache_bytes: 72e6,
            memory_latency: 225e-9,
            cache_latency: 108e-9,
            multiply_adds: 41.3e12,
            load_bandwidth: 41.3e12,
            bytes_in_flight: 0.52e6,
            cores: 128,
            workgroup_bytes: 100 << 10,
            ..H100
        },
        sources: "vendor: 128 SMs, 2.52 GHz, 1.01 TB/s, 72 MB; arXiv 2402.13499: latencies; the rest assumed",
    },
    Gpu {
        name: "RX 7900 XTX",
        kind: DiscreteGpu,
        backend: Vulkan,
        vendor: AMD,
        subgroup_lanes: 32,
        workgroup_limit: 64 << 10,
        numbers: DeviceNumbers {
            launch: 4e-6,
            gap: 3e-6,
            memory_bandwidth: 0.85e12,
            cache_bandwidth: 3.5e12,
            cache_bytes: 96e6,
            memory_latency: 320e-9,
            cache_latency: 120e-9,
            multiply_adds: 18.4e12,
            load_bandwidth: 14.7e12,
            bytes_in_flight: 0.59e6,
            cores: 48,
            resident_threads: 1024,
            workgroup_bytes: 128 << 10,
            registers: 128,
            rows_together: 4,
        },
        sources: "vendor: 48 WGPs, 2.4 GHz, 0.96 TB/s, 96 MB; Chips and Cheese: latencies of the caches; a fifth of \
                  dual issue, memory's latency and the rest assumed",
    },
    Gpu {
        name: "Apple M3 Max",
        kind: IntegratedGpu,
        backend: Metal,
        vendor: 0,
        subgroup_lanes: 32,
        workgroup_limit: 32 << 10,
        numbers: DeviceNumbers {
            launch: 6e-6,
            gap: 4e-6,
            memory_bandwidth: 0.35e12,
            cache_bandwidth: 1e12,
            cache_bytes: 48e6,
            memory_latency: 400e-9,
            cache_latency: 180e-9,
            multiply_adds: 7.07e12,
            load_bandwidth: 3.53e12,
            bytes_in_flight: 0.29e6,
            cores: 40,
            resident_threads: 384,
            workgroup_bytes: 64 << 10,
            registers: 128,
            rows_together: 4,
        },
        sources: "vendor: 40 cores, 0.4 TB/s; 1.38 GHz, latencies, caches and the rest assumed",
    },
    Gpu {
        name: "Arc A770",
        kind: DiscreteGpu,
        backend: Vulkan,
        vendor: INTEL,
        subgroup_lanes: 8,
        workgroup_limit: 64 << 10,
        numbers: DeviceNumbers {
            launch: 6e-6,
            gap: 4e-6,
            memory_bandwidth: 0.45e12,
            cache_bandwidth: 1.5e12,
            cache_bytes: 16e6,
            memory_latency: 480e-9,
            cache_latency: 200e-9,
            multiply_adds: 8.6e12,
            load_bandwidth: 4.3e12,
            bytes_in_flight: 0.43e6,
            cores: 32,
            resident_threads: 1024,
            workgroup_bytes: 128 << 10,
            registers: 128,
            rows_together: 4,
        },
        sources: "vendor: 32 Xe cores, 2.1 GHz, 0.56 TB/s, 16 MB; latencies and the rest assumed",
    },
    Gpu {
        name: "Adreno 740",
        kind: IntegratedGpu,
        backend: Vulkan,
        vendor: QUALCOMM,
        subgroup_lanes: 64,
        workgroup_limit: 32 << 10,
        numbers: DeviceNumbers {
            launch: 20e-6,
            gap: 15e-6,
            memory_bandwidth: 50e9,
            cache_bandwidth: 200e9,
            cache_bytes: 1e6,
            memory_latency: 600e-9,
            cache_latency: 300e-9,
            multiply_adds: 1.04e12,
            load_bandwidth: 0.26e12,
            bytes_in_flight: 60e3,
            cores: 12,
            resident_threads: 512,
            workgroup_bytes: 32 << 10,
            registers: 128,
            rows_together: 4,
        },
        sources: "0.68 GHz, 67 GB/s of LPDDR5X; everything else assumed",
    },
    Gpu {
        name: "Mali-G715 MC11",
        kind: IntegratedGpu,
        backend: Vulkan,
        vendor: ARM,
        subgroup_lanes: 16,
        workgroup_limit: 32 << 10,
        numbers: DeviceNumbers {
            launch: 30e-6,
            gap: 20e-6,
            memory_bandwidth: 45e9,
            cache_bandwidth: 200e9,
            cache_bytes: 2e6,
            memory_latency: 600e-9,
            cache_latency: 300e-9,
            multiply_adds: 1.34e12,
            load_bandwidth: 0.33e12,
            bytes_in_flight: 54e3,
            cores: 11,
            resident_threads: 512,
            workgroup_bytes: 32 << 10,
            registers: 64,
            rows_together: 4,
        },
        sources: "vendor: 11 cores of 128 lanes, 64 registers (GPU Best Practices); 0.95 GHz and everything else assumed",
    },
];
