//! Helpers that several tests use.

use std::path::{Path, PathBuf};
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

/// A test's own folder. It is removed when it is dropped.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new(test: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("hydralora-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder for temporary files");
        Self(folder)
    }

    /// Writes a file with these contents, and returns its path.
    pub fn file(&self, name: &str, contents: &[u8]) -> PathBuf {
        let path = self.0.join(name);
        std::fs::write(&path, contents).expect("the folder can be written");
        path
    }

    /// The names of the files in it, sorted.
    pub fn names(&self) -> Vec<String> {
        Self::names_in(&self.0)
    }

    pub fn names_in(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("it is there");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("it is there").file_name().display().to_string()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
