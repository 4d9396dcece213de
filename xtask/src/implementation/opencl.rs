//! Intel's offline compiler for its GPUs, with clang and the translator to SPIR-V before it: packages of
//! Debian 12, unpacked beside each other and not installed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian;

/// The programs, then the libraries that they load.
const PACKAGES: [&str; 11] = [
    "intel-opencl-icd",
    "clang-14",
    "llvm-spirv-14",
    "libclang-common-14-dev",
    "libclang-cpp14",
    "libigc1",
    "libigdfcl1",
    "libigdgmm12",
    "libllvm14",
    "libllvmspirvlib14",
    "libopencl-clang14",
];

pub(crate) struct OpenCl {
    roots: Vec<PathBuf>,
    /// Of the compiler.
    pub version: String,
}

impl OpenCl {
    pub(super) fn provide(directory: &Path) -> Result<Self, String> {
        debian::require()?;
        let packages = PACKAGES.map(|package| debian::unpack(package, directory));
        let packages = packages.into_iter().collect::<Result<Vec<_>, _>>()?;
        let compiler = PACKAGES.iter().position(|&package| package == "libigc1");
        let version = compiler.map(|index| packages[index].version.clone()).unwrap_or_default();
        Ok(Self { roots: packages.into_iter().map(|package| package.root).collect(), version })
    }

    /// Clang's compiler for C and its kin, which is told where its headers lie.
    pub(crate) fn clang(&self) -> Command {
        let mut clang = self.program("usr/lib/llvm-14/bin/clang");
        clang.args(["-cc1", "-internal-isystem"]).arg(self.find("usr/lib/llvm-14/lib/clang/14.0.6/include"));
        clang
    }

    pub(crate) fn llvm_spirv(&self) -> Command {
        self.program("usr/bin/llvm-spirv-14")
    }

    pub(crate) fn ocloc(&self) -> Command {
        self.program("usr/bin/ocloc")
    }

    /// Where a file of one of the packages is.
    fn find(&self, path: &str) -> PathBuf {
        let found = self.roots.iter().map(|root| root.join(path)).find(|path| path.exists());
        found.unwrap_or_else(|| path.into())
    }

    /// A program of one of the packages, with the libraries of all.
    fn program(&self, path: &str) -> Command {
        let mut command = Command::new(self.find(path));
        let libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib/llvm-14/lib"];
        let libraries = self.roots.iter().flat_map(|root| libraries.map(|folder| root.join(folder)));
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap_or_else(|_| OsString::new()));
        command
    }
}
