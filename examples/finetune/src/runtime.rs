//! What all runs share: the device, the kernels compiled on it, and the frozen base.

use std::path::Path;

use hydralora::device::{self, Gpu};
use hydralora::{Element, Kernels};

use crate::Result;
use crate::base::Base;
use crate::shader::Shaders;

pub struct Runtime {
    pub gpu: Gpu,
    pub kernels: Kernels,
    pub shaders: Shaders,
    pub base: Base,
}

impl Runtime {
    /// Opens the device whose adapter's name contains `adapter`, or the best one, and loads the base with weights
    /// of the type `element`.
    pub fn new(adapter: Option<&str>, base: &Path, element: Element) -> Result<Self> {
        let gpu = pollster::block_on(open(adapter))?;
        let kernels = Kernels::new(&gpu.device, &gpu.queue);
        let shaders = Shaders::compile(&gpu.device);
        let base = Base::load(&gpu, base, element)?;
        Ok(Self { gpu, kernels, shaders, base })
    }
}

async fn open(wanted: Option<&str>) -> Result<Gpu> {
    let Some(wanted) = wanted else { return Ok(Gpu::from_env().await?) };
    let adapters = device::adapters_from_env().await;
    let matches = |name: &str| name.to_lowercase().contains(&wanted.to_lowercase());
    if let Some(adapter) = adapters.iter().find(|adapter| matches(&adapter.get_info().name)) {
        return Ok(Gpu::from_adapter(adapter).await?);
    }
    let names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    if names.is_empty() {
        return Err(format!("no GPU adapter at all: {}", device::NO_ADAPTER_HELP).into());
    }
    Err(format!("no GPU adapter's name contains `{wanted}`; there are: {}", names.join(", ")).into())
}
