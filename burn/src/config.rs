//! The options of a layer, in burn's form.

use burn::config::Config;
use burn::tensor::Device;
use hydralora::{Dropout, Router, Sharing, Weighting};

use crate::error::Error;
use crate::hydra::HydraLora;

/// The configuration of a [`HydraLora`]: the library's [`hydralora::Config`], which documents each option, and a seed. It is
/// saved beside a module's record, which has the parameters alone.
///
/// The library's kernel for losses of the router is not here, and so neither is `logsumexp`, which keeps what one of these
/// losses needs. burn's autodiff differentiates any loss of [`HydraLora::gates`], such as one that keeps experts in use.
///
/// ```
/// use burn_hydralora::HydraLoraConfig;
///
/// let config = HydraLoraConfig::new(1024, 1024, 8).with_experts(4).with_scaling(2.0);
/// assert_eq!(config.layer().parameter_count(), (8 + 4) * 1024 + 4 * 8 * 1024);
/// ```
#[derive(Config, Debug)]
pub struct HydraLoraConfig {
    /// Length of a token's input.
    pub d_input: usize,
    /// Length of a token's output.
    pub d_output: usize,
    /// Rows of A, columns of each expert's B.
    pub rank: usize,
    /// Number of experts; one is plain `LoRA`.
    #[config(default = 1)]
    pub experts: usize,
    /// The factor of the experts' sum.
    #[config(default = 1.0)]
    pub scaling: f32,
    /// The router's input.
    #[config(default = "Router::Input")]
    pub router: Router,
    /// Whether experts share A.
    #[config(default = "Sharing::Shared")]
    pub sharing: Sharing,
    /// How logits become the experts' weights.
    #[config(default = "Weighting::Softmax")]
    pub weighting: Weighting,
    /// Whether the router has a bias.
    #[config(default = false)]
    pub router_bias: bool,
    /// By what the logits are divided.
    #[config(default = 1.0)]
    pub temperature: f32,
    /// Dropout in training: on an autodiff device, unless the module is frozen.
    pub dropout: Option<Dropout>,
    /// Of the initialisation, which is the library's, and of dropout. Without one, each adapter that a process makes has
    /// another, counted from 0.
    pub seed: Option<u64>,
}

impl HydraLoraConfig {
    /// The library's configuration of the layer.
    #[must_use]
    pub fn layer(&self) -> hydralora::Config {
        // Too large for the library is too large as u32::MAX, too, and refused as such.
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        hydralora::Config {
            d_in: length(self.d_input),
            d_out: length(self.d_output),
            rank: length(self.rank),
            experts: length(self.experts),
            scaling: self.scaling,
            router: self.router,
            a: self.sharing,
            weighting: self.weighting,
            router_bias: self.router_bias,
            temperature: self.temperature,
            dropout: self.dropout,
            ..hydralora::Config::DEFAULT
        }
    }

    /// A fresh adapter on a device: y is zero until it is trained.
    ///
    /// # Panics
    /// Where [`HydraLoraConfig::try_init`] returns an error.
    #[must_use]
    pub fn init(&self, device: &Device) -> HydraLora {
        self.try_init(device).unwrap_or_else(|error| panic!("HydraLoraConfig::init: {error}"))
    }

    /// A fresh adapter on a device: y is zero until it is trained.
    ///
    /// # Errors
    /// An invalid configuration, or a wgpu device that this package does not know.
    pub fn try_init(&self, device: &Device) -> Result<HydraLora, Error> {
        let seed = self.seed.unwrap_or_else(next_seed);
        let adapter = hydralora::Adapter::initialise(&self.layer(), seed)?;
        Ok(HydraLora::try_from_adapter(&self.layer(), &adapter, device)?.with_seed(seed))
    }
}

/// Adapters without a seed are counted, so that no two have the same.
pub(crate) fn next_seed() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
