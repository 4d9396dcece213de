//! Forward: the adapter's whole contribution to y, in one or two steps.

use super::Problem;
use super::fused::{Fused, gate_rows, mask, parameters};
use super::work::{check_tokens, matrix_bytes, product_flops, vecs};
use crate::element::Element;
use crate::error::Error;
use crate::kernel::{Access, BindingKind, Drops, ForwardShader, Shader};
use crate::layer::{Config, ForwardOptions, GateRows, Layout, WriteMode};
use crate::plan::fused::FusedProblem;
use crate::plan::{Choice, DeviceProfile, Traffic};
use crate::recording::{Operand, Recording, Work};

pub(super) struct Forward {
    config: Config,
    layout: Layout,
    options: ForwardOptions,
    problem: FusedProblem,
}

impl Forward {
    pub(super) fn new(config: &Config, tokens: u32, options: ForwardOptions) -> Result<Self, Error> {
        let layout = check_tokens(config, tokens)?;
        if options.gates != GateRows::Token && !config.gate().is_given() {
            return Err(Error::Exclusive { option: "rows of gates", other: "a router of the layer's own" });
        }
        let problem = FusedProblem {
            kernel: "forward",
            tokens,
            columns: config.shrink_rows(),
            resident: u64::from(config.state_len()),
            per_summed: 0,
            source_vecs: vecs(config.d_in),
            target_vecs: vecs(config.d_out),
            expand_rows: config.rank * config.experts,
            first_rows: 0,
            staged: true,
            traffic: Traffic {
                source: options.x,
                matrix: options.parameters,
                target: options.y,
                accumulate: options.write == WriteMode::Accumulate,
            },
        };
        Ok(Self { config: *config, layout, options, problem })
    }

    fn tensors(&self) -> Result<Vec<Operand>, Error> {
        let Self { config, options, problem: FusedProblem { tokens, .. }, .. } = self;
        let (read, write) = (BindingKind::Read, BindingKind::Write);
        let mut tensors = vec![
            Operand::matrix("x", read, options.x, *tokens, config.d_in).strided(options.x_stride)?,
            parameters(options.parameters, self.layout.len()),
            Operand::matrix("y", write, options.y, *tokens, config.d_out).strided(options.y_stride)?,
        ];
        if options.save {
            tensors.push(Operand::matrix("saved", write, Element::F32, *tokens, config.state_len()));
        }
        if config.gate().is_given() {
            tensors.push(gate_rows("gates", options.gates, config, *tokens)?);
        }
        if options.mask {
            tensors.push(mask(*tokens));
        }
        Ok(tensors)
    }
}

impl Problem for Forward {
    fn choices(&self, device: &DeviceProfile) -> Result<Vec<Choice>, Error> {
        self.problem.choices(device)
    }

    fn rounds(&self, choice: Choice, device: &DeviceProfile) -> u64 {
        self.problem.rounds(choice, device)
    }

    fn seconds(&self, choice: Choice, device: &DeviceProfile) -> Result<f64, Error> {
        let placed = self.problem.place(choice.fused("forward")?, device)?;
        Ok(self.problem.seconds(&placed, &device.numbers))
    }

    fn record(&self, choice: Choice, device: &DeviceProfile) -> Result<Recording, Error> {
        let Self { config, options, ref problem, .. } = *self;
        let ForwardOptions { write, save, x, parameters, y, mask, .. } = options;
        let dropout = config.drops().filter(|_| save);
        let placed = problem.place(choice.fused("forward")?, device)?;
        let y = Access::new("y", y, config.d_out)?;
        let shader = |x| {
            let Config { rank, experts, .. } = config;
            let (a_rows, gate, tile) = (config.a_rows(), config.gate(), placed.tile);
            Shader::Forward(ForwardShader {
                a_rows,
                rank,
                experts,
                gate,
                tile,
                x,
                parameters,
                y,
                write,
                save,
                drops: dropout.map(|dropout| Drops::new(dropout, device)),
                mask,
            })
        };
        let fused = Fused {
            name: "forward",
            config: &config,
            problem,
            tensors: self.tensors()?,
            source: Access::new("x", x, config.d_in)?,
            target: "y",
            shrink_matrix: 0,
            rows: options.gates,
            dropout,
            dropped_columns: if save && config.drops_input() { config.a_rows() } else { 0 },
            least: least_work(&config, problem.tokens, &options)?,
            device,
        };
        fused.record(&placed, shader)
    }
}

pub(super) fn least_work(config: &Config, tokens: u32, options: &ForwardOptions) -> Result<Work, Error> {
    let ForwardOptions { write, save, x, parameters, y, .. } = *options;
    let layout = check_tokens(config, tokens)?;
    let state = if save { config.state_bytes(tokens) } else { 0 };
    let rows = if config.gate().is_given() { options.gates.count(tokens) } else { 0 };
    let gates = matrix_bytes(Element::F32, rows, config.experts);
    let bytes = matrix_bytes(x, tokens, config.d_in)
        + layout.len() as u64 * parameters.bytes()
        + write.passes() * matrix_bytes(y, tokens, config.d_out)
        + state
        + gates;
    Ok(Work { bytes, flops: product_flops(config, tokens) })
}
