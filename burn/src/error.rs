//! What is refused where there is a result; mistakes in shapes panic, as burn's do.

use burn::tensor::wgpu::WgpuInitError;

/// Every reason for which a module or a device is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The layer, or what it needs of the device.
    #[error(transparent)]
    Layer(#[from] hydralora::Error),

    /// A checkpoint that is damaged, or has no such module.
    #[error(transparent)]
    Checkpoint(#[from] hydralora::checkpoint::CheckpointError),

    /// burn could not start its wgpu device.
    #[error(transparent)]
    Wgpu(#[from] WgpuInitError),

    /// burn could not read a tensor.
    #[error("the adapter's parameters could not be read: {message}")]
    Read {
        /// burn's message.
        message: String,
    },

    /// burn's wgpu device was started without this package, and burn hands out its handles only then.
    #[error(
        "hydralora does not know the device {device}: start it with burn_hydralora::init before its first use, \
         or give its WgpuSetup to burn_hydralora::register"
    )]
    Unregistered {
        /// The device.
        device: String,
    },

    /// The device is not one of burn's wgpu devices.
    #[error(
        "{device} is not a wgpu device: it needs no registration, because burn's own operations run there"
    )]
    NotWgpu {
        /// The device.
        device: String,
    },

    /// burn compiles for everything that the adapter has, and the device was requested with less.
    #[error(
        "the device was requested without {features}, which its adapter has and burn's kernels use: request the \
         device with them"
    )]
    MissingFeatures {
        /// wgpu's names of the features.
        features: String,
    },
}
