//! Helpers that several tests use.

use std::sync::LazyLock;

use hydralora::device::{Gpu, adapters_from_env};
use hydralora::{Config, Router, wgpu};

/// The device that the tests share.
pub static GPU: LazyLock<Gpu> = LazyLock::new(|| {
    let gpu = pollster::block_on(Gpu::from_env());
    gpu.unwrap_or_else(|error| panic!("these tests need a GPU or a software driver.\n{error}"))
});

/// A small layer.
pub const CONFIG: Config =
    Config { d_in: 8, d_out: 8, rank: 2, experts: 2, scaling: 1.0, router: Router::Input, ..Config::DEFAULT };

/// The adapter of [`GPU`], for tests that need their own device.
pub fn adapter() -> wgpu::Adapter {
    pollster::block_on(adapters_from_env()).swap_remove(0)
}

pub fn zeroed(label: &str, elements: usize) -> wgpu::Buffer {
    GPU.zeroed(label, elements).expect("it fits")
}
