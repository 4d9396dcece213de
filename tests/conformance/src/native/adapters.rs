//! The adapters of this machine, and what a device can do beyond running jobs.

use std::time::{Duration, Instant};

use hydralora::device::adapters_from_env;
use hydralora::kernel::Shader;
use hydralora::{DeviceProfile, Planner, wgpu};

use crate::case::Planning;
use crate::device::{Device, Failure, LIMITS, WgpuDevice, told_profile, tuning};
use crate::job::{Job, Memory};

/// A device of this machine.
pub trait NativeDevice: Device {
    /// Runs a job once more than asked and gives the time of each of the asked runs.
    fn time(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        runs: u32,
    ) -> Result<Vec<Duration>, Failure>;

    /// Whether it runs what it compiles.
    fn runs(&self) -> bool {
        true
    }

    /// Compiles a shader, and runs nothing.
    fn compile(&self, shader: &Shader) -> Result<(), Failure>;

    /// The wgpu device, for what goes beyond running jobs.
    fn wgpu(&self) -> Option<&WgpuDevice>;
}

/// The planner of a job on a device.
pub fn planner(profile: &DeviceProfile, planning: Planning, job: &Job) -> Planner {
    let planner = Planner::new(told_profile(profile, planning));
    Planner { tuning: tuning(&planner, planning, job), ..planner }
}

/// Every adapter that the environment and `wanted` (a part of the name) leave, each with its own
/// limits, with WebGPU's defaults and with wgpu's downlevel defaults.
pub fn all(wanted: Option<&str>, implementation: Option<&str>) -> Result<Vec<WgpuDevice>, String> {
    let mut devices = Vec::new();
    // Twin GPUs are told apart by a number.
    let mut adapters: Vec<(wgpu::Backend, String)> = Vec::new();
    for adapter in pollster::block_on(adapters_from_env()) {
        let info = adapter.get_info();
        let same = adapters.iter().filter(|seen| **seen == (info.backend, info.name.clone())).count();
        adapters.push((info.backend, info.name.clone()));
        if wanted.is_some_and(|wanted| !info.name.to_lowercase().contains(&wanted.to_lowercase())) {
            continue;
        }
        let name = match same {
            0 => info.name.clone(),
            _ => format!("{} #{}", info.name, same + 1),
        };
        let driver = format!("{} {}", info.driver, info.driver_info);
        for limits_of in LIMITS {
            let request = WgpuDevice::request(&adapter, &name, driver.trim(), limits_of, implementation);
            let device = pollster::block_on(request);
            match device.map_err(|error| format!("{} ({limits_of}): {error}", info.name))? {
                Some(device) => devices.push(device),
                None => eprintln!("{} does not have {limits_of}: not tested with these", info.name),
            }
        }
    }
    Ok(devices)
}

impl NativeDevice for WgpuDevice {
    fn time(
        &self,
        job: &Job,
        memory: &Memory,
        planning: Planning,
        runs: u32,
    ) -> Result<Vec<Duration>, Failure> {
        let (_buffers, prepared) = pollster::block_on(self.prepare(job, memory, planning))?;
        let once = || {
            let begin = Instant::now();
            self.gpu.submit(|pass| prepared.iter().try_for_each(|encode| encode(pass)))?;
            self.gpu.wait()?;
            Ok(begin.elapsed())
        };
        // Some drivers compile a pipeline when it first runs.
        once()?;
        (0..runs).map(|_| once()).collect()
    }

    fn compile(&self, shader: &Shader) -> Result<(), Failure> {
        Ok(self.kernels(Planning::Device).warm([shader.clone()])?)
    }

    fn wgpu(&self) -> Option<&WgpuDevice> {
        Some(self)
    }
}
