//! Backward with respect to the input: dx and the per-token `[dh, dl]`, in one or two steps.

use super::Problem;
use super::fused::{Fused, gate_rows, mask, parameters};
use super::work::{check_tokens, matrix_bytes, product_flops, vecs};
use crate::element::Element;
use crate::error::Error;
use crate::kernel::{Access, BackwardInputShader, BindingKind, Drops, Shader};
use crate::layer::{BackwardInputOptions, Config, Gate, GateGradient, GateRows, Layout, WriteMode};
use crate::plan::fused::FusedProblem;
use crate::plan::{Choice, DeviceProfile, Traffic};
use crate::recording::{Operand, Recording, Work};

pub(super) struct BackwardInput {
    config: Config,
    layout: Layout,
    options: BackwardInputOptions,
    problem: FusedProblem,
}

impl BackwardInput {
    pub(super) fn new(config: &Config, tokens: u32, options: BackwardInputOptions) -> Result<Self, Error> {
        let layout = check_tokens(config, tokens)?;
        match (config.gate(), options.gate_gradient) {
            (Gate::One, Some(_)) => {
                return Err(Error::Exclusive { option: "a gradient of the gate", other: "one expert" });
            }
            (Gate::Given, Some(GateGradient::Logits(_))) => {
                return Err(Error::Exclusive { option: "a gradient of logits", other: "given weights" });
            }
            _ => {}
        }
        let (target, write) = options.dx.unwrap_or((Element::F32, WriteMode::Overwrite));
        let problem = FusedProblem {
            kernel: "backward_input",
            tokens,
            columns: config.rank * config.experts,
            // `state` and `dstate_tile`
            resident: 2 * u64::from(config.state_len()),
            // `v`
            per_summed: 1,
            source_vecs: vecs(config.d_out),
            // Without dx there is nothing to expand.
            target_vecs: options.dx.map_or(0, |_| vecs(config.d_in)),
            expand_rows: config.shrink_rows(),
            first_rows: if config.drops_input() { config.a_rows() } else { 0 },
            staged: false,
            traffic: Traffic {
                source: options.g,
                matrix: Element::F32,
                target,
                accumulate: write == WriteMode::Accumulate,
            },
        };
        Ok(Self { config: *config, layout, options, problem })
    }

    fn tensors(&self) -> Result<Vec<Operand>, Error> {
        let Self { config, options, problem: FusedProblem { tokens, .. }, .. } = self;
        let (read, write) = (BindingKind::Read, BindingKind::Write);
        let state = |name, kind| Operand::matrix(name, kind, Element::F32, *tokens, config.state_len());
        let mut tensors = vec![
            Operand::matrix("g", read, options.g, *tokens, config.d_out).strided(options.g_stride)?,
            parameters(Element::F32, self.layout.len()),
            state("saved", read),
            state("dstate", write),
        ];
        if let Some((element, _)) = options.dx {
            let dx = Operand::matrix("dx", write, element, *tokens, config.d_in);
            tensors.push(dx.strided(options.dx_stride)?);
        }
        if let Some(added) = options.gate_gradient {
            let len = u64::from(config.gate().losses_len(config.experts));
            tensors.push(match added {
                GateGradient::Losses => Operand::vector("gate_gradient", read, Element::F32, len),
                GateGradient::Weights(rows) | GateGradient::Logits(rows) => {
                    gate_rows("gate_gradient", rows, config, *tokens)?
                }
            });
        }
        if options.mask {
            tensors.push(mask(*tokens));
        }
        Ok(tensors)
    }
}

impl Problem for BackwardInput {
    fn choices(&self, device: &DeviceProfile) -> Result<Vec<Choice>, Error> {
        self.problem.choices(device)
    }

    fn rounds(&self, choice: Choice, device: &DeviceProfile) -> u64 {
        self.problem.rounds(choice, device)
    }

    fn seconds(&self, choice: Choice, device: &DeviceProfile) -> Result<f64, Error> {
        let placed = self.problem.place(choice.fused("backward_input")?, device)?;
        Ok(self.problem.seconds(&placed, &device.numbers))
    }

    fn record(&self, choice: Choice, device: &DeviceProfile) -> Result<Recording, Error> {
        let Self { config, layout, options, ref problem } = *self;
        let placed = problem.place(choice.fused("backward_input")?, device)?;
        let access = |(element, write)| Ok((Access::new("dx", element, config.d_in)?, write));
        let dx = options.dx.map(access).transpose()?;
        let shader = |g| {
            let Config { rank, experts, .. } = config;
            let (gate, tile) = (config.gate(), placed.tile);
            Shader::BackwardInput(BackwardInputShader {
                a_rows: config.a_rows(),
                rank,
                experts,
                gate,
                tile,
                g,
                dx,
                gate_gradient: options.gate_gradient.map(|added| match added {
                    GateGradient::Losses if gate.has_softmax() || options.mask => GateGradient::Losses,
                    GateGradient::Weights(_) | GateGradient::Losses => GateGradient::Weights(GateRows::Token),
                    GateGradient::Logits(_) => GateGradient::Logits(GateRows::Token),
                }),
                drops: config.drops().map(|dropout| Drops::new(dropout, device)),
                mask: options.mask,
            })
        };
        let fused = Fused {
            name: "backward_input",
            config: &config,
            problem,
            tensors: self.tensors()?,
            source: Access::new("g", options.g, config.d_out)?,
            target: "dx",
            shrink_matrix: (layout.expand().offset() / 4) as u32,
            rows: options.gate_gradient.map_or(GateRows::Token, GateGradient::rows),
            dropout: config.drops(),
            dropped_columns: 0,
            least: least_work(&config, problem.tokens, &options)?,
            device,
        };
        fused.record(&placed, shader)
    }
}

pub(super) fn least_work(
    config: &Config,
    tokens: u32,
    options: &BackwardInputOptions,
) -> Result<Work, Error> {
    let BackwardInputOptions { g, dx, gate_gradient, .. } = *options;
    let rows = gate_gradient.map_or(0, |added| added.rows().count(tokens));
    let layout = check_tokens(config, tokens)?;
    let expand = layout.expand().rows() * layout.expand().stride();
    let without_dx = Work {
        bytes: matrix_bytes(g, tokens, config.d_out)
            + 2 * config.state_bytes(tokens)
            + 4 * expand as u64
            + matrix_bytes(Element::F32, rows, config.experts),
        flops: 2 * u64::from(tokens) * u64::from(config.d_out) * u64::from(config.rank * config.experts),
    };
    let Some((element, write)) = dx else { return Ok(without_dx) };
    Ok(Work {
        bytes: without_dx.bytes
            + 4 * (layout.len() - expand) as u64
            + write.passes() * matrix_bytes(element, tokens, config.d_in),
        flops: product_flops(config, tokens),
    })
}
