//! The common part of recordings of forward and `backward_input`: a fused kernel, and the separate shrink
//! before it, if there is one.

use bytemuck::{Pod, Zeroable};

use super::work::dispatches;
use crate::element::Element;
use crate::error::Error;
use crate::kernel::{Access, BindingKind, Drops, Shader, ShrinkFrom, ShrinkShader};
use crate::layer::{Config, Dropout, GateRows};
use crate::plan::fused::{FusedPlacement, FusedProblem, ShrinkPlacement};
use crate::plan::{Choice, DeviceProfile};
use crate::recording::{Operand, Recording, Slot, Step, Work};

/// `struct Dims` in `uniform/fused.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct FusedDims {
    pub(super) d_in: u32,
    pub(super) d_out: u32,
    pub(super) slice_vecs: u32,
    pub(super) source_stride: u32,
    pub(super) target_stride: u32,
    pub(super) expand_block: u32,
    pub(super) gate_block: u32,
    pub(super) scaling: f32,
    pub(super) experts: u32,
    pub(super) shrink_rows: u32,
    pub(super) first_tile: u32,
    pub(super) logit_scale: f32,
    pub(super) row_tokens: u32,
    pub(super) dropout_threshold: u32,
    pub(super) keep_scale: f32,
    pub(super) dropout_stream: u32,
}

/// `struct Dims` in `shrink.wgsl`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct ShrinkDims {
    pub(super) source_width: u32,
    pub(super) source_stride: u32,
    pub(super) matrix: u32,
    pub(super) split_vecs: u32,
    pub(super) first_tile: u32,
    pub(super) dropout_threshold: u32,
    pub(super) keep_scale: f32,
    pub(super) dropout_stream: u32,
}

/// A fused kernel on a layer.
pub(super) struct Fused<'a> {
    pub(super) name: &'static str,
    pub(super) config: &'a Config,
    pub(super) problem: &'a FusedProblem,
    /// The tensors: first the source, then the parameters, then the others.
    pub(super) tensors: Vec<Operand>,
    /// x or g.
    pub(super) source: Access,
    /// The name of y or dx.
    pub(super) target: &'static str,
    /// The start of the shrink's matrix in the parameters, in vec4s.
    pub(super) shrink_matrix: u32,
    /// Which tokens share a row of the gates, or of their gradient.
    pub(super) rows: GateRows,
    /// What is dropped.
    pub(super) dropout: Option<Dropout>,
    /// The columns of the shrink that see x with elements dropped.
    pub(super) dropped_columns: u32,
    /// The least work of the operation.
    pub(super) least: Work,
    pub(super) device: &'a DeviceProfile,
}

impl Fused<'_> {
    /// Records the kernel as placed. `shader` makes its key from the source of its shrink.
    pub(super) fn record(
        self,
        placed: &FusedPlacement,
        shader: impl FnOnce(ShrinkFrom) -> Shader,
    ) -> Result<Recording, Error> {
        let Self { name, config, problem, tensors, source, target, .. } = self;
        let Self { shrink_matrix, rows, dropout, dropped_columns, least, device, .. } = self;
        let (dropout_threshold, keep_scale, dropout_stream) = drop_numbers(dropout);
        let tokens = problem.tokens;
        let stride_of =
            |name| tensors.iter().find(|operand| operand.name == name).map_or(0, |o| o.stride as u32);
        let (source_stride, target_stride) = (tensors[0].stride as u32, stride_of(target));
        let mut slots: Vec<Slot> = tensors.iter().map(|operand| Slot::Tensor(operand.name)).collect();
        let dispatches = dispatches(problem.flops(placed), device);
        let mut steps = Vec::new();
        let mut scratch = Vec::new();
        let mut from = ShrinkFrom::Rows(source);
        if let Some(ShrinkPlacement { tile, splits, split_vecs, grid, sums }) = placed.shrink {
            let (source_width, parameters) = (tensors[0].columns as u32, tensors[1].element);
            let columns = problem.columns;
            let drops = dropout.filter(|_| dropped_columns > 0);
            let drops = drops.map(|dropout| (Drops::new(dropout, device), dropped_columns));
            let shader = ShrinkShader { columns, tile, source, parameters, drops };
            let bound = [slots[0], slots[1], Slot::Scratch(0)];
            let memory = 16 * u64::from(tile.scratch);
            for (first_tile, grid) in grid.divided(tokens, dispatches) {
                let matrix = shrink_matrix;
                let dims = ShrinkDims {
                    source_width,
                    source_stride,
                    matrix,
                    split_vecs,
                    first_tile,
                    dropout_threshold,
                    keep_scale,
                    dropout_stream,
                };
                let shader = Shader::Shrink(shader);
                steps.push(Step::new(shader, &dims, grid, bound.to_vec(), memory, tokens, device)?);
            }
            scratch.push(sums);
            slots[0] = Slot::Scratch(0);
            from = ShrinkFrom::Sums(splits);
        }
        let Config { d_in, d_out, scaling, experts, temperature, .. } = *config;
        let slice_vecs = placed.slice_vecs;
        let shrink_rows = config.shrink_rows();
        let [expand_block, gate_block, _] = config.layout()?.vecs();
        let dims = FusedDims {
            d_in,
            d_out,
            slice_vecs,
            source_stride,
            target_stride,
            expand_block,
            gate_block,
            scaling,
            experts,
            shrink_rows,
            first_tile: 0,
            logit_scale: 1.0 / temperature,
            row_tokens: rows.tokens(),
            dropout_threshold,
            keep_scale,
            dropout_stream,
        };
        let shader = shader(from);
        for (first_tile, grid) in placed.grid.divided(tokens, dispatches) {
            let dims = FusedDims { first_tile, ..dims };
            steps.push(Step::new(shader.clone(), &dims, grid, slots.clone(), placed.memory, tokens, device)?);
        }
        // The sums are written and read.
        let bytes = least.bytes + 2 * scratch.iter().sum::<u64>();
        let work = Work { bytes, flops: problem.flops(placed) };
        let choice = Some(Choice::Fused(placed.choice));
        Ok(Recording { operation: name, capacity: tokens, tensors, scratch, steps, choice, work })
    }
}

/// The parameters, as an operand.
pub(super) fn parameters(element: Element, elements: usize) -> Operand {
    Operand::vector("parameters", BindingKind::Read, element, elements as u64)
}

/// Rows of gates, or of their gradient, as an operand. Sequences of no tokens are refused.
pub(super) fn gate_rows(
    name: &'static str,
    rows: GateRows,
    config: &Config,
    tokens: u32,
) -> Result<Operand, Error> {
    Error::check_dimension("the tokens of a sequence", rows.tokens())?;
    let (count, experts) = (rows.count(tokens), config.experts);
    Ok(Operand::matrix(name, BindingKind::Read, Element::F32, count, experts))
}

/// The mask of tokens, as an operand.
pub(super) fn mask(tokens: u32) -> Operand {
    Operand::matrix("mask", BindingKind::Read, Element::F32, tokens, 1)
}

/// The numbers of dropout in uniforms: the threshold, the factor of what is kept, and the stream.
pub(super) fn drop_numbers(dropout: Option<Dropout>) -> (u32, f32, u32) {
    dropout.map_or((0, 1.0, 0), |dropout| (dropout.threshold(), dropout.keep_scale(), dropout.stream))
}
