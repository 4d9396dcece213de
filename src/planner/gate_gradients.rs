//! The gradients of given weights or logits that tokens share. One step.

use bytemuck::{Pod, Zeroable};

use super::Problem;
use super::fused::gate_rows;
use super::work::check_tokens;
use crate::element::Element;
use crate::error::Error;
use crate::kernel::{BindingKind, GateGradientsShader, Shader};
use crate::layer::{Config, GateGradientsOptions};
use crate::plan::{Choice, DeviceProfile, Grid, WORKGROUP};
use crate::recording::{Operand, Recording, Slot, Step, Work};

const NAME: &str = "gate_gradients";

/// `struct Dims` in `gate_gradients.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub(super) struct Dims {
    pub(super) row_tokens: u32,
}

pub(super) struct GateGradients {
    config: Config,
    tokens: u32,
    options: GateGradientsOptions,
}

impl GateGradients {
    pub(super) fn new(config: &Config, tokens: u32, options: GateGradientsOptions) -> Result<Self, Error> {
        check_tokens(config, tokens)?;
        if !config.gate().is_given() {
            let other = "a router, whose gradients backward_params computes";
            return Err(Error::Exclusive { option: "gradients of given weights or logits", other });
        }
        Ok(Self { config: *config, tokens, options })
    }
}

impl Problem for GateGradients {
    fn choices(&self, _: &DeviceProfile) -> Result<Vec<Choice>, Error> {
        Ok(vec![Choice::Only])
    }

    fn rounds(&self, _: Choice, _: &DeviceProfile) -> u64 {
        self.options.rows.tokens().min(self.tokens).div_ceil(WORKGROUP).into()
    }

    fn seconds(&self, choice: Choice, device: &DeviceProfile) -> Result<f64, Error> {
        choice.only(NAME)?;
        let least = least_work(&self.config, self.tokens, &self.options)?;
        Ok(device.numbers.launch + least.bytes as f64 / device.numbers.memory_bandwidth)
    }

    fn record(&self, choice: Choice, device: &DeviceProfile) -> Result<Recording, Error> {
        choice.only(NAME)?;
        let Self { config, tokens, options: GateGradientsOptions { rows } } = *self;
        let dstate = Operand::matrix("dstate", BindingKind::Read, Element::F32, tokens, config.state_len());
        let sums = gate_rows(NAME, rows, &config, tokens)?.written();
        let (a_rows, experts, gate) = (config.a_rows(), config.experts, config.gate());
        let shader = Shader::GateGradients(GateGradientsShader { a_rows, experts, gate });
        let row_tokens = rows.tokens();
        let fix = "process fewer tokens at a time";
        let grid = Grid::tiles(NAME, experts, row_tokens, tokens, &device.limits, fix)?;
        let slots = vec![Slot::Tensor("dstate"), Slot::Tensor(NAME)];
        let memory = 4 * u64::from(WORKGROUP);
        let step = Step::new(shader, &Dims { row_tokens }, grid, slots, memory, tokens, device)?;
        Ok(Recording {
            operation: NAME,
            capacity: tokens,
            tensors: vec![dstate, sums],
            scratch: Vec::new(),
            steps: vec![step],
            choice: Some(Choice::Only),
            work: least_work(&config, tokens, &self.options)?,
        })
    }
}

pub(super) fn least_work(
    config: &Config,
    tokens: u32,
    options: &GateGradientsOptions,
) -> Result<Work, Error> {
    check_tokens(config, tokens)?;
    let [tokens, rows, experts] = [tokens, options.rows.count(tokens), config.experts].map(u64::from);
    Ok(Work { bytes: 4 * (tokens + rows) * experts, flops: tokens * experts })
}
