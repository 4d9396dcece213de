//! What all runs share: the device, the kernels compiled on it, and the frozen base.

use hydralora::device::Gpu;
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
    /// Loads the base from its file's bytes, with weights of the type `element`.
    pub fn new(gpu: Gpu, base: &[u8], element: Element) -> Result<Self> {
        let kernels = Kernels::new(&gpu.device, &gpu.queue);
        let shaders = Shaders::compile(&gpu.device);
        let base = Base::load(&gpu, base, element)?;
        Ok(Self { gpu, kernels, shaders, base })
    }
}
