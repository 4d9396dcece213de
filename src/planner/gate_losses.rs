//! Losses of a router: sums over the tokens for each expert, then the losses and their gradient. Two steps.

use bytemuck::{Pod, Zeroable};

use super::Problem;
use super::fused::mask;
use super::work::check_tokens;
use crate::element::Element;
use crate::error::Error;
use crate::kernel::{BindingKind, GateSumsShader, Shader};
use crate::layer::{Config, Gate, GateLossesOptions};
use crate::plan::{Choice, DeviceProfile, Grid, WORKGROUP};
use crate::recording::{Operand, Recording, Slot, Step, Work};

/// `struct Dims` in `gate_sums.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct SumsDims {
    pub(super) experts: u32,
}

/// `struct Dims` in `gate_losses.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct LossesDims {
    pub(super) experts: u32,
    pub(super) balance_scale: f32,
    pub(super) spread_scale: f32,
    pub(super) z_scale: f32,
    /// Numbers of `gate_gradient`.
    pub(super) gradients: u32,
}

pub(super) struct GateLosses {
    config: Config,
    tokens: u32,
    options: GateLossesOptions,
}

impl GateLosses {
    pub(super) fn new(config: &Config, tokens: u32, options: GateLossesOptions) -> Result<Self, Error> {
        check_tokens(config, tokens)?;
        options.check()?;
        if config.gate() == Gate::One {
            return Err(Error::Exclusive { option: "a router's losses", other: "one expert" });
        }
        if options.z != 0.0 && !config.logsumexp {
            let other = "a layer that does not save the logsumexp of its logits";
            return Err(Error::Exclusive { option: "a z-loss", other });
        }
        Ok(Self { config: *config, tokens, options })
    }
}

impl Problem for GateLosses {
    fn choices(&self, _: &DeviceProfile) -> Result<Vec<Choice>, Error> {
        Ok(vec![Choice::Only])
    }

    fn rounds(&self, _: Choice, _: &DeviceProfile) -> u64 {
        u64::from(self.tokens.div_ceil(WORKGROUP)) * u64::from(self.config.experts)
    }

    fn seconds(&self, choice: Choice, device: &DeviceProfile) -> Result<f64, Error> {
        choice.only("gate_losses")?;
        let least = least_work(&self.config, self.tokens, &self.options)?;
        Ok(2.0 * device.numbers.launch + least.bytes as f64 / device.numbers.memory_bandwidth)
    }

    fn record(&self, choice: Choice, device: &DeviceProfile) -> Result<Recording, Error> {
        choice.only("gate_losses")?;
        let Self { config, tokens, options } = *self;
        let Config { experts, .. } = config;
        let (read, write) = (BindingKind::Read, BindingKind::Write);
        let row = |name, len| Operand::vector(name, write, Element::F32, u64::from(len));
        let mut tensors = vec![
            Operand::matrix("saved", read, Element::F32, tokens, config.state_len()),
            row("gate_gradient", config.gate().losses_len(experts)),
            row("report", 5 + 2 * experts),
        ];
        let (a_rows, gate) = (config.a_rows(), config.gate());
        let sums = Shader::GateSums(GateSumsShader { a_rows, experts, gate, mask: options.mask });
        let mut slots = vec![Slot::Tensor("saved"), Slot::Scratch(0)];
        if options.mask {
            tensors.push(mask(tokens));
            slots.push(Slot::Tensor("mask"));
        }
        let grid = Grid::Fixed([experts + 1, 1, 1]);
        let memory = 16 * u64::from(WORKGROUP);
        let of_tokens = Step::new(sums, &SumsDims { experts }, grid, slots, memory, tokens, device)?;
        let GateLossesOptions { balance: balance_scale, spread: spread_scale, z: z_scale, .. } = options;
        let gradients = gate.losses_len(experts);
        let dims = LossesDims { experts, balance_scale, spread_scale, z_scale, gradients };
        let slots = vec![Slot::Scratch(0), Slot::Tensor("gate_gradient"), Slot::Tensor("report")];
        let grid = Grid::Fixed([1; 3]);
        let of_experts = Step::new(Shader::GateLosses, &dims, grid, slots, 0, tokens, device)?;
        Ok(Recording {
            operation: "gate_losses",
            capacity: tokens,
            tensors,
            scratch: vec![16 * (u64::from(experts) + 1)],
            steps: vec![of_tokens, of_experts],
            choice: Some(Choice::Only),
            work: least_work(&config, tokens, &options)?,
        })
    }
}

pub(super) fn least_work(config: &Config, tokens: u32, _: &GateLossesOptions) -> Result<Work, Error> {
    check_tokens(config, tokens)?;
    let weights = u64::from(tokens) * u64::from(config.experts);
    Ok(Work { bytes: 4 * weights, flops: weights * u64::from(config.experts) })
}
